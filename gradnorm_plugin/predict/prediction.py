"""What is found in one image: boxes and what is said of the whole image, why, and what a clip says; as numbers and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gradnorm_plugin.outputs import CLASS, Classes, ImageOutput, Target, the_classes
from gradnorm_plugin.predict import PredictError
from gradnorm_plugin.predict.drawing import DetectedBox, ImageClass, Region, Style, draw, draw_heat, side_by_side


class Answer(NamedTuple):
    """What one image output says of the image."""

    output: ImageOutput
    values: tuple[float, ...]
    """The output's probabilities or value, as its kind activates its logits."""
    unsure: bool = False
    """Whether the class is left open: its probability is below what was asked for."""

    @property
    def array(self) -> np.ndarray:
        """The values as the output's kind takes them."""
        return np.array(self.values)

    @property
    def target(self) -> Target | None:
        """What a label file would say; None where that is left open."""
        return None if self.unsure else self.output.decide(self.array)

    @property
    def data(self) -> dict[str, Any]:
        """The answer as plain data; a class that is left open is None, its probabilities are there."""
        return self.output.as_data(self.array) | ({"class": None} if self.unsure else {})

    @property
    def cells(self) -> dict[str, Any]:
        """The answer as the cells of a table, by column; a class that is left open is empty."""
        return self.output.cells(self.array) | ({self.output.name: ""} if self.unsure else {})

    def say(self, confidences: bool = True) -> tuple[str, str]:
        """The answer in words, and the number that closes them, if there is one."""
        plain, full = self.output.say_target(self.output.decide(self.array)), self.output.say(self.array)
        if self.unsure:
            return self.output.titled("unsure"), full[len(plain) :] if confidences else ""
        if not confidences:
            return plain, ""
        return (plain, full[len(plain) :]) if full.startswith(plain) else (full, "")


def answered(output: ImageOutput, values: Sequence[float], abstain: float) -> Answer:
    """The answer of `output`; a class is left open if its probability is below `abstain`."""
    return Answer(output, tuple(values), isinstance(output, Classes) and max(values) < abstain)


def the_image_class(answers: Sequence[Answer]) -> ImageClass | None:
    """The class that the one output says that tells a class; None if there is none, or more than one, or if it is left open."""
    told = the_classes(tuple(answer.output for answer in answers))
    for output, values, unsure in answers:
        if told and output is told and not unsure:
            best = max(range(len(values)), key=values.__getitem__)
            return ImageClass(best, told.names[best], values[best], dict(zip(told.names, values, strict=True)))
    return None


def _named(answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
    """The answers, where there is something else to say than the class of `classification_names`; else none."""
    return () if [(answer.output.name, answer.unsure) for answer in answers] == [(CLASS, False)] else answers


def _said(image_class: ImageClass | None, answers: tuple[Answer, ...]) -> dict[str, Any]:
    """What is said of an image, in types that JSON knows."""
    outputs = {answer.output.name: answer.data for answer in answers}
    return {"image_class": image_class and image_class._asdict(), **({"outputs": outputs} if _named(answers) else {})}


@dataclass(frozen=True)
class Clip:
    """What the image outputs say of frames that show one thing, together: `after` takes them one by one.

    A class and labels have the mean of the frames' logits, at their temperatures; a value has the mean of its values.
    """

    abstain: float = 0.0
    """A class whose probability is below this is left open."""
    frames: int = 0
    """How many there were."""
    answers: tuple[Answer, ...] = ()

    def after(self, found: Prediction) -> Clip:
        """The clip with one more frame."""
        before = self.answers or found.answers
        means = [
            answered(new.output, new.output.joined(mean.array, self.frames, new.array).tolist(), self.abstain)
            for mean, new in zip(before, found.answers, strict=True)
        ]
        return Clip(self.abstain, self.frames + 1, tuple(means))

    @property
    def image_class(self) -> ImageClass | None:
        """Of the one image output that tells a class; None if there is none, or more than one, or if it is left open."""
        return the_image_class(self.answers)

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """What each image output says as plain data, by its name."""
        return {answer.output.name: answer.data for answer in self.answers}

    def say(self, confidences: bool = True) -> list[tuple[str, str]]:
        """Each answer in words, and the number that closes it, if there is one."""
        said = [(answer.output.name, *answer.say(confidences)) for answer in self.answers]
        return [(f"clip{':' if name == CLASS else ''} {text}", number) for name, text, number in said]

    def to_dict(self) -> dict[str, Any]:
        """All of it in types that JSON knows."""
        return {"frames": self.frames, **_said(self.image_class, self.answers)}


@dataclass(frozen=True)
class Prediction:
    """What was found in one image."""

    path: str | None
    """The file, stream or screen the image came from; None for an array."""
    frame: int | None
    """Number of the frame in a video or stream, from 1; None for a picture."""
    shape: tuple[int, int]
    """Height and width in pixels."""
    boxes: tuple[DetectedBox, ...]
    """By falling confidence."""
    image_class: ImageClass | None
    """Of the one image output that tells a class; None if there is none, or more than one, or if it is left open."""
    image: np.ndarray = field(repr=False, compare=False)
    """The image itself, (H, W, 3) uint8, BGR."""
    answers: tuple[Answer, ...] = ()
    """What each image output says; none for weights that only detect."""
    clip: Clip | None = None
    """What the frames up to this one say together, where that was asked for."""
    explainer: Callable[[Prediction, Sequence[str]], Sequence[Reason]] | None = field(default=None, repr=False, compare=False)
    """What `explain` asks: the predictor."""

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """What each image output says as plain data, by its name."""
        return {answer.output.name: answer.data for answer in self.answers}

    @property
    def named(self) -> tuple[Answer, ...]:
        """The answers, where there is something else to say than the class of `classification_names`; else none."""
        return _named(self.answers)

    def __getstate__(self) -> dict[str, Any]:
        """What goes into another process: everything but the way back to the network."""
        return {**self.__dict__, "explainer": None}

    def explain(self, *outputs: str) -> Explanation:
        """Why the image outputs (default: all) say what they say; the network looks at the image once more.

        Raises:
            PredictError: if the weights cannot tell (an exported file, an ensemble, a detector without image outputs), if an
                output is not theirs, or if the prediction comes from another process.
        """
        if self.explainer is None:
            raise PredictError("explain needs the predictor, which does not travel to another process: explain where it predicts")
        return Explanation(self, tuple(self.explainer(self, outputs)))

    def draw(self, style: Style | None = None) -> np.ndarray:
        """The image with boxes and what is said of it, (H, W, 3) uint8, BGR; the image itself stays as it is."""
        style = style or Style()
        lines = [answer.say(style.confidences) for answer in self.named]
        lines += self.clip.say(style.confidences) if self.clip else []
        return draw(self.image, self.boxes, None if self.named else self.image_class, style, lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the image, in types that JSON knows; `outputs` only where `named` has something."""
        return {
            "path": self.path,
            "frame": self.frame,
            "height": self.shape[0],
            "width": self.shape[1],
            **_said(self.image_class, self.answers),
            "boxes": [box._asdict() for box in self.boxes],
        }


class Reason(NamedTuple):
    """Why one image output says one thing."""

    output: str
    """The output's name."""
    text: str
    """What it says, in words: a class, one of several labels, a value."""
    heat: np.ndarray
    """(H, W) float32, over the pixels of the image: how much what is there speaks for it, 1 where most does; all 0 if nothing
    does. For a value: how much it raises it."""
    regions: tuple[Region, ...]
    """The objects that a guided head has looked into, by falling share; none for another head."""


@dataclass(frozen=True)
class Explanation:
    """Why the image outputs say what they say of an image: a reason for each class, each label that is there, each value."""

    prediction: Prediction
    reasons: tuple[Reason, ...]

    def draw(self, style: Style | None = None, note: str = "") -> np.ndarray:
        """The picture as `Prediction.draw` gives it, beside it a heat map for each reason, and below a legend that ends with
        `note`; (H, W, 3) uint8, BGR."""
        style, image = style or Style(), self.prediction.image
        panels = [draw_heat(image, reason.heat, reason.regions, reason.text, style) for reason in self.reasons]
        return side_by_side([self.prediction.draw(style), *panels], note)
