"""What a conversion found odd and how it dealt with it (a table at the end), and the error that ends it."""

from __future__ import annotations

import csv
import io
from enum import Enum
from pathlib import Path
from typing import NamedTuple

EXAMPLES = 3


class Kind(Enum):
    """A kind of oddity: what was found, and what was done with it, in the order of the table."""

    # Images and their annotations
    UNREADABLE_IMAGE = ("image that cannot be read", "left out")
    UNREADABLE_ANNOTATION = ("annotation that cannot be read", "left out, with its image")
    NO_IMAGE = ("annotation without an image", "passed over")
    AMBIGUOUS = ("annotation that fits several images", "passed over, its images left out")
    BACKGROUND = ("image without annotation", "kept as background")
    NO_OBJECTS = ("annotation without objects", "image kept as background")
    UNLISTED = ("image that the annotation file does not name", "left out")
    OTHER_JSON = ("JSON file of something else", "passed over")
    NOT_ANNOTATED = ("task that nobody has annotated", "left out, with its image")
    SEVERAL_ANNOTATIONS = ("task annotated several times", "the ground truth kept, else the newest")
    REPEATED_ID = ("id given twice", "first one kept, the other passed over")
    LISTED_TWICE = ("image listed twice", "its annotations put together")
    LINKED = ("image that is a link to a place outside the source", "read from there")
    SIZE = ("annotated size differs from the image", "image believed, boxes taken as its pixels")
    TURNED = ("image with EXIF rotation, annotated unrotated", "boxes turned with the picture, as YOLOv5 reads it")
    ROTATED = ("image with EXIF rotation", "boxes taken as those of the upright picture, as YOLOv5 reads it")
    DEEP = ("picture of more than 8 bits, or DICOM", "written as PNG of 8 bits, as `predict` reads it")
    NO_END = ("JPEG without its end mark", "copied, never linked: YOLOv5 rewrites such a file")
    SAME_NAME = ("images of one name", "renamed after their folder or suffix")
    SAME_PICTURE = ("picture that occurs twice, byte for byte", "kept; a drawn split keeps copies together")
    TWO_CLASSES = ("picture that occurs twice, in different classes", "kept; correct one of the two")
    # Boxes
    READING = ("boxes in other terms than the format's", "read as what they plainly are")
    DOUBTFUL = ("boxes that fit as two corners as well", "taken as x, y, width, height, as COCO has it")
    AROUND_TURNED = ("object with a turned box", "box taken around it")
    FROM_OUTLINE = ("object with an outline but no usable box", "box taken from around the outline")
    SPECK = ("speck of a mask, smaller than 4 pixels", "dropped")
    NO_AREA = ("box without area", "dropped")
    BEYOND = ("box wholly outside the image", "dropped")
    OUTSIDE = ("box that reaches outside the image", "clipped to the image")
    REVERSED = ("box with exchanged corners", "corners put in order")
    REPEATED_BOX = ("box given twice", "kept once")
    UNKNOWN_CLASS = ("box of a class that is not in names", "dropped")
    UNREADABLE_OBJECT = ("object without a usable class or box", "dropped")
    CROWD = ("crowd region of COCO", "dropped")
    DIFFICULT = ("box marked difficult", "kept")
    DIFFICULT_DROPPED = ("box marked as difficult", "dropped, as --drop-difficult asks")
    NO_OUTLINE = ("object without an outline of one part", "its box written as a polygon")
    # Classes of images
    NO_CLASS = ("image without a class", "boxes kept, no image class")
    SEVERAL_CLASSES = ("image with several classes", "boxes kept, no image class")
    REPEATED_CLASS = ("image with one class named several times", "taken as one")
    NOT_CHOSEN = ("image of a class that --image-class does not name", "boxes kept, no image class")
    RARE = ("image of a class that is too rare", "class dropped from classification_names; boxes kept, no image class")
    EMPTY_CLASS = ("image class that no image has alone", "dropped from classification_names")
    ALIKE = ("image classes that differ only in upper and lower case", "kept apart; correct the spelling if they are one")
    ROW_WITHOUT_IMAGE = ("CSV row that fits no image", "passed over")
    ROW_AMBIGUOUS = ("CSV row that fits several images", "passed over")
    ONE_CLASS = ("only one image class", "kept; every accuracy is 1, and nothing is learnt of it")
    REPEATED_ROW = ("image with several CSV rows", "their classes put together")
    # Image outputs
    NO_LINE = ("image without an entry for an image output", "kept, without that line")
    BAD_ENTRY = ("entry that its image output cannot take", "passed over; image kept, without that line")
    SEVERAL_IN_ONE = (
        "image with several classes for one image output",
        "passed over; image kept, without that line (kind `labels` keeps all)",
    )
    NOT_LISTED = ("name that --output does not list", "dropped; image kept")
    RARE_NAME = ("class or label of an image output that is too rare", "dropped from image_outputs; image kept")
    UNUSED_NAME = ("class or label of an image output that no image has", "dropped from image_outputs")
    ALWAYS = ("label that every labelled image has", "kept; nothing is learnt of it. Write `none` where an image has no label")
    # Split
    LINE_WITHOUT_IMAGE = ("line of a split that fits no single image", "passed over")
    NO_SPLIT = ("image in no split", "left out")
    TWO_SPLITS = ("image in several splits", "kept in the one that is measured (test, then val)")
    NO_GROUP = ("image without a group", "split by itself")
    GROUP_APART = ("group in several splits", "kept as the lists say; correct them, or leave out --split")
    NEAR = ("picture nearly identical to one of another split", "kept; have a split drawn by --group, or remove one of the two")
    LEAK = ("picture of val or test that is in train too", "kept as the split says; remove one of the two")
    VAL_IN_TEST = ("picture of val that is in test too", "kept as the split says; remove one of the two")
    NO_VAL = ("source has no val split", "drawn from train")
    CLASS_NOT_IN_SPLIT = ("class that a split has no example of", "kept; not learnt or not measured there")

    @property
    def title(self) -> str:
        """What was found."""
        return self.value[0]

    @property
    def action(self) -> str:
        """What is done with it."""
        return self.value[1]

    @property
    def loses(self) -> bool:
        """Whether something in the source is missing from the result."""
        return self.action.startswith(("dropped", "left out", "passed over"))


class Oddity(NamedTuple):
    """One case: its kind, the file (and line), and details."""

    kind: Kind
    where: str
    detail: str = ""

    def __str__(self) -> str:
        return _plain(f"{self.where}: {self.detail}" if self.detail else self.where)


class Oddities:
    """All oddities, in the order they were found."""

    def __init__(self) -> None:
        self.cases: list[Oddity] = []

    def add(self, kind: Kind, where: str, detail: str = "") -> None:
        """Note one case."""
        self.cases.append(Oddity(kind, where, detail))

    def by_kind(self) -> dict[Kind, list[Oddity]]:
        """The cases by kind, in the order of `Kind`."""
        found: dict[Kind, list[Oddity]] = {kind: [] for kind in Kind}
        for case in self.cases:
            found[case.kind].append(case)
        return {kind: cases for kind, cases in found.items() if cases}

    def first(self) -> str:
        """One line that explains why nothing is left: the first cases of the kinds that cost most images or boxes."""
        losses = sorted((item for item in self.by_kind().items() if item[0].loses), key=lambda item: -len(item[1]))
        return "; ".join(f"{kind.title} ({len(cases)}): {cases[0]}" for kind, cases in losses[:EXAMPLES])

    def table(self) -> str:
        """A table for the screen: each kind with its count, and its first cases below it."""
        if not self.cases:
            return "Nothing odd was found."
        found = self.by_kind()
        width = max(len(kind.title) for kind in found)
        lines = [f"{'found':<{width}}  count  done", f"{'-' * width}  -----  {'-' * 40}"]
        for kind, cases in found.items():
            lines.append(f"{kind.title:<{width}}  {len(cases):>5}  {kind.action}")
            lines += [f"    {case}" for case in cases[:EXAMPLES]]
            if len(cases) > EXAMPLES:
                lines.append(f"    ... and {len(cases) - EXAMPLES} more")
        return "\n".join(lines)

    def markdown(self) -> str:
        """The table in Markdown, followed by lists of all cases."""
        if not self.cases:
            return "Nothing odd was found.\n"
        found = self.by_kind()
        lines = ["| found | count | done |", "|---|---:|---|"]
        lines += [f"| {kind.title} | {len(cases)} | {kind.action} |" for kind, cases in found.items()]
        for kind, cases in found.items():
            lines += ["", f"## {kind.title[0].upper()}{kind.title[1:]} ({len(cases)})", ""]
            lines += [f"- `{str(case).replace('`', chr(39))}`" for case in cases]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """A CSV file with a row per case; no cell can be taken for a formula by a spreadsheet."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["found", "done", "where", "detail"])
        writer.writerows([kind.title, kind.action, _cell(where), _cell(detail)] for kind, where, detail in self.cases)
        return text.getvalue()


def _cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{_plain(text)}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else _plain(text)


def _plain(text: str) -> str:
    """Text on one line, with unprintable characters as escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class ConversionError(ValueError):
    """Nothing can be converted; raised throughout `convert`. The message says why, where and what to do."""


def shown(path: Path) -> str:
    """`path` for messages: relative to the working folder if it is inside it."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
