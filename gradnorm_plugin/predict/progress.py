"""What the screen says: a line an image for a few, a bar for many, and a summary at the end."""

from __future__ import annotations

import sys
from collections import Counter

from tqdm import tqdm

from gradnorm_plugin.predict.prediction import Prediction
from gradnorm_plugin.predict.sources import Source
from gradnorm_plugin.upstream.gateway import upstream

_general = upstream("utils.general")

FEW = 10
"""Up to so many images have a line each."""
LISTED = 20
"""Of the files that cannot be read so many are named."""


class Progress:
    """Counts what is found while it shows it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.images = 0
        self.objects: Counter[str] = Counter()
        self.image_classes: Counter[str] = Counter()
        few = source.total is not None and source.total <= FEW
        pause = 0.1 if sys.stderr.isatty() else 10  # seconds: in a log each state of the bar stays
        bar = {"desc": "predict", "bar_format": _general.TQDM_BAR_FORMAT, "mininterval": pause}
        self._bar = None if few else tqdm(total=source.total, **bar)

    def add(self, prediction: Prediction, milliseconds: float) -> None:
        """Count one image and show it; `milliseconds` is the time the network took for it."""
        self.images += 1
        objects = Counter(box.name for box in prediction.boxes)
        self.objects += objects
        if prediction.image_class:
            self.image_classes[prediction.image_class.name] += 1
        done = self.images + len(self.source.unreadable)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            return
        parts = [_counted(objects) or "no boxes"]
        if prediction.image_class:
            parts.append(f"{prediction.image_class.name} {prediction.image_class.probability:.2f}")
        frame = "" if prediction.frame is None else f" ({prediction.frame})"
        _general.LOGGER.info(f"{done}/{self.source.total} {prediction.path}{frame}: {'; '.join(parts)}; {milliseconds:.1f}ms")

    def close(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.update(self.images + len(self.source.unreadable) - self._bar.n)
            self._bar.close()

    def summary(self) -> None:
        """Say what was found in all images, and what could not be read."""
        lines = [f"{self.images} image{'s' * (self.images != 1)}; boxes: {_counted(self.objects) or 'none'}"]
        if self.image_classes:
            lines.append(f"classes of the images: {_counted(self.image_classes)}")
        _general.LOGGER.info("\n".join(lines))
        if self.source.unreadable:
            _general.LOGGER.warning(unreadable(self.source))


def unreadable(source: Source) -> str:
    """One text that lists what could not be read."""
    count = len(source.unreadable)
    lines = [f"{count} file{'s' * (count != 1)} cannot be read:", *(f"  {line}" for line in source.unreadable[:LISTED])]
    if count > LISTED:
        lines.append(f"  ... and {count - LISTED} more")
    return "\n".join(lines)


def _counted(names: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in names.items())
