"""What a conversion found odd and what it did with each (shown as a table at the end), and the error that ends it."""

from __future__ import annotations

import csv
import io
from enum import Enum
from pathlib import Path
from typing import NamedTuple

EXAMPLES = 3


class Kind(Enum):
    """A kind of oddity: what it is, and what is done with it. The table has them in this order."""

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
        """Whether something of the source is not in the result."""
        return self.action.startswith(("dropped", "left out", "passed over"))


class Oddity(NamedTuple):
    """One case: its kind, the file (and line), and what there is to say about it."""

    kind: Kind
    where: str
    detail: str = ""

    def __str__(self) -> str:
        return _plain(f"{self.where}: {self.detail}" if self.detail else self.where)


class Oddities:
    """All that was found odd, in the order in which it was found."""

    def __init__(self) -> None:
        self.cases: list[Oddity] = []

    def add(self, kind: Kind, where: str, detail: str = "") -> None:
        """Note one case."""
        self.cases.append(Oddity(kind, where, detail))

    def of(self, kind: Kind) -> list[Oddity]:
        """The cases of one kind."""
        return [case for case in self.cases if case.kind is kind]

    def first(self) -> str:
        """The first cases of the kinds that cost most images or boxes, on one line: why nothing is left."""
        kinds = sorted((kind for kind in Kind if kind.loses and self.of(kind)), key=lambda kind: -len(self.of(kind)))
        return "; ".join(f"{kind.title} ({len(self.of(kind))}): {self.of(kind)[0]}" for kind in kinds[:EXAMPLES])

    def table(self) -> str:
        """For the screen: a line for each kind that occurs, with its count, and under it the first cases."""
        rows = [(kind, self.of(kind)) for kind in Kind if self.of(kind)]
        if not rows:
            return "Nothing odd was found."
        width = max(len("found"), *(len(kind.title) for kind, _ in rows))
        lines = [f"{'found':<{width}}  count  done", f"{'-' * width}  -----  {'-' * 40}"]
        for kind, cases in rows:
            lines.append(f"{kind.title:<{width}}  {len(cases):>5}  {kind.action}")
            lines += [f"    {case}" for case in cases[:EXAMPLES]]
            if len(cases) > EXAMPLES:
                lines.append(f"    ... and {len(cases) - EXAMPLES} more")
        return "\n".join(lines)

    def markdown(self) -> str:
        """The same table in Markdown, with every case in a list under it."""
        rows = [(kind, self.of(kind)) for kind in Kind if self.of(kind)]
        if not rows:
            return "Nothing odd was found.\n"
        lines = ["| found | count | done |", "|---|---:|---|"]
        lines += [f"| {kind.title} | {len(cases)} | {kind.action} |" for kind, cases in rows]
        for kind, cases in rows:
            lines += ["", f"## {kind.title[0].upper()}{kind.title[1:]} ({len(cases)})", ""]
            lines += [f"- `{str(case).replace('`', chr(39))}`" for case in cases]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """Every case in a row: found, done, where, detail; no cell is a formula to a spreadsheet."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["found", "done", "where", "detail"])
        writer.writerows([kind.title, kind.action, _cell(where), _cell(detail)] for kind, where, detail in self.cases)
        return text.getvalue()


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{_plain(text)}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else _plain(text)


def _plain(text: str) -> str:
    """Text on one line that any terminal and file can take: what cannot be printed becomes an escape."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class ConversionError(ValueError):
    """Nothing can be converted: what every function of `convert` raises that cannot go on. It says why, where and what to do."""


def shown(path: Path) -> str:
    """`path` as messages have it: relative to the working folder if it lies in it."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def first_line(error: Exception) -> str:
    """What an error says, on one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
