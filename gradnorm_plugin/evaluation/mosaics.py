"""What is said of the image on every tile of upstream's batch mosaics: `train_batch*.jpg`, `val_batch*_labels.jpg`, `_pred.jpg`.

Upstream draws the mosaics; it writes each image's file name into the corner of its tile. Here a badge goes above that name: the
labels of the image (of a mosaic-augmented one: of its anchor, whose name stands there), such as its class, or in a mosaic of
predictions what was predicted, and the true one where it differs.

B images in the batch, W answers of all image outputs side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from torch import Tensor

from gradnorm_plugin.outputs import CLASS, ImageOutput, Outputs, Target, split
from gradnorm_plugin.predict.drawing import SMALLEST_TEXT
from gradnorm_plugin.upstream.gateway import swapped, upstream

_plots = upstream("utils.plots")
_Annotator: Any = _plots.Annotator

# Distinct for the colour-blind, dark enough for white text. The words say it too: a wrong answer names the true class.
LABEL, RIGHT, WRONG, NONE = (40, 40, 40), (0, 84, 147), (176, 58, 0), (75, 75, 75)


@dataclass(frozen=True)
class Badge:
    """What stands on a tile, and its colour, RGB."""

    text: str
    colour: tuple[int, int, int]


def label_badges(outputs: Outputs, targets: Mapping[str, Tensor]) -> list[Badge]:
    """A badge for each image of a batch, with what its labels say."""
    nothing = Badge("no class" if outputs[0].name == CLASS else "no label", NONE)
    badges = []
    for labels in zip(*(_labels(output, targets[output.name]) for output in outputs), strict=True):
        lines = [output.say_target(label) for output, label in zip(outputs, labels, strict=True) if label is not None]
        badges.append(Badge("\n".join(lines), LABEL) if lines else nothing)
    return badges


def answer_badges(outputs: Outputs, answers: Tensor, targets: Mapping[str, Tensor]) -> list[Badge]:
    """A badge for each row of (B, W) answers, next to the labels of the batch."""
    columns = split(outputs, answers.numpy())
    said = [_labels(output, targets[output.name]) for output in outputs]
    badges = []
    for index in range(len(answers)):
        lines, right = [], []
        for output, of_output, labels in zip(outputs, columns, said, strict=True):
            answer, label = of_output[index], labels[index]
            lines.append(output.say(answer))
            if label is not None:
                right.append(output.right(answer, label))
                if not right[-1]:
                    true = output.say_target(label).removeprefix(output.titled(""))
                    lines[-1] += f"\ntrue: {true}" if output.name == CLASS else f" (true {true})"
        badges.append(Badge("\n".join(lines), NONE if not right else RIGHT if all(right) else WRONG))
    return badges


def _labels(output: ImageOutput, targets: Tensor) -> list[Target | None]:
    """The label of each image of a batch, or None."""
    known = output.known(targets).tolist()
    return [output.target(row) if there else None for row, there in zip(targets.cpu(), known, strict=True)]


@contextmanager
def badges_on_mosaics(
    module: ModuleType, badges: Callable[[bool], Sequence[Badge]], box_names: Mapping[int, str] | Sequence[str] | None = None
) -> Iterator[None]:
    """While the block runs, the mosaics that upstream's `module` draws carry badges, and are written when their call returns.

    Args:
        module: of upstream, the one whose `plot_images` is called.
        badges: gives those of the batch that is being drawn, in its order; its argument tells a mosaic of predictions from
            one of labels.
        box_names: names of the boxes' classes where upstream would write their numbers.
    """

    def plot_images(images: Any, targets: Any, paths: Any = None, fname: Any = "images.jpg", names: Any = None) -> None:
        predicted = targets.shape[-1] == 7  # upstream's predictions end with their confidence
        with swapped(_plots, Annotator=partial(_BadgeAnnotator, list(badges(predicted)))):
            drawing = _plots.plot_images(images, targets, paths, fname, names or box_names)
            if drawing is not None:  # upstream draws in a thread of its own, which must find our annotator to its end
                drawing.join()

    with swapped(module, plot_images=plot_images):
        yield


class _BadgeAnnotator(_Annotator):
    """Upstream's annotator, which puts the next badge above each file name and keeps it above the boxes of its tile."""

    def __init__(self, badges: Sequence[Badge], *args: Any, example: Any = "abc", **kwargs: Any) -> None:
        # Upstream chooses between its two fonts by the text that it is to write.
        super().__init__(*args, example=f"{example}{''.join(badge.text for badge in badges)}", **kwargs)
        self._waiting = iter(badges)
        self._redraw: Callable[[], None] = lambda: None
        self._tile_end = math.inf

    def rectangle(self, xy: Sequence[float], *args: Any, **kwargs: Any) -> None:
        """Draw the border of the next tile."""
        self._tile_end = xy[2]
        super().rectangle(xy, *args, **kwargs)

    def text(self, xy: Sequence[float], text: str, *args: Any, **kwargs: Any) -> None:
        """Write the next tile's badge at `xy`, in letters that fit the tile, and the file name below it."""
        badge, (x, y), font = next(self._waiting), xy, self.font
        _, top, right, bottom = self.draw.textbbox((x + 3, y), badge.text, font=font)
        while right + 4 > self._tile_end and font.size > SMALLEST_TEXT:
            font = font.font_variant(size=font.size - 1)
            _, top, right, bottom = self.draw.textbbox((x + 3, y), badge.text, font=font)

        def draw() -> None:
            self.draw.rectangle((x - 2, top - 4, right + 4, bottom + 4), fill=badge.colour)
            self.draw.text((x + 3, y), badge.text, fill=(255, 255, 255), font=font)

        self._redraw = draw
        draw()
        super().text([x, bottom + 4], text, *args, **kwargs)

    def box_label(self, *args: Any, **kwargs: Any) -> None:
        """Draw a box, then redraw the badge that it may have covered."""
        super().box_label(*args, **kwargs)
        self._redraw()
