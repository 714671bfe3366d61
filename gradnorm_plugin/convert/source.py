"""What a source of labels says, whatever its format: the reader of each format fills one `Source`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gradnorm_plugin.convert.boxes import Annotation, clean_name
from gradnorm_plugin.convert.image_files import ImageIndex
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities
from gradnorm_plugin.outputs import Outputs, Target

CLASS_KEYS = ("image_class", "class", "category", "label")
"""Under which the entry of an image has its class, as people call it."""


@dataclass
class Source:
    """All that one source says of the images of `index`, by image file, and what was odd about it.

    `names` are the box classes in the order of the source; `splits` the images of train, val, test; an image in `faulty` has an
    annotation that cannot be read. `complete`: an image that is not in `annotations` is a background (else it is left out).

    What is said of an image as a whole stands in its `entries`, each with its place; the class under the first of `class_keys`
    that an entry has (several `rival_keys` are no answer). YOLO has `image_classes` instead, numbered in the order of
    `image_class_order`, and `said` for each of its image `outputs`.
    """

    index: ImageIndex
    oddities: Oddities = field(default_factory=Oddities)
    annotations: dict[Path, Annotation] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    splits: dict[str, list[Path]] = field(default_factory=dict)
    faulty: set[Path] = field(default_factory=set)
    complete: bool = True
    entries: dict[Path, list[tuple[str, Mapping[str, Any]]]] = field(default_factory=dict)
    class_keys: Sequence[str] = CLASS_KEYS
    rival_keys: Sequence[str] = ()
    image_classes: dict[Path, list[str]] | None = None
    image_class_order: Sequence[str] = ()
    outputs: Outputs = ()
    said: dict[str, dict[Path, Target]] = field(default_factory=dict)

    def note(self, kind: Kind, where: str | Path, detail: str = "") -> None:
        """Note something odd, about an image or at a place."""
        self.oddities.add(kind, self.index.key(where) if isinstance(where, Path) else where, detail)

    def the_one(self, images: Sequence[Path], where: str, absent: str = "no such image") -> Path | None:
        """The image that an annotation belongs to, if only one fits; else that is noted, and those that fit are left out."""
        if len(images) == 1:
            return images[0]
        self.note(Kind.AMBIGUOUS if images else Kind.NO_IMAGE, where, ", ".join(map(self.index.key, images)) or absent)
        self.faulty.update(images)
        return None

    def begin(self, image: Path, where: str, size: tuple[float, float] | None = None) -> Annotation:
        """The annotation of an image, a new one if it has none; an image that has one already is noted."""
        if image in self.annotations:
            self.note(Kind.LISTED_TWICE, where, f"{self.annotations[image].where} is the same image")
        annotation = self.annotations.setdefault(image, Annotation([], where, size))
        annotation.size = annotation.size or size
        return annotation

    def take_names(self, order: Sequence[str] = ()) -> None:
        """Take the box classes from the objects: in this order, the others by the alphabet."""
        found = {thing.name for annotation in self.annotations.values() for thing in annotation.objects}
        self.names = [name for name in dict.fromkeys(order) if name in found] + sorted(found - set(order))

    def entry_keys(self) -> list[str]:
        """All keys of the entries."""
        return list(dict.fromkeys(str(key) for rows in self.entries.values() for _, entry in rows for key in entry))


def read_renaming(text: str) -> tuple[str, str]:
    """The old and the new name of one `--rename`."""
    old, _, new = text.rpartition("=")
    names = clean_name(old), clean_name(new)
    if names[0] is None or names[1] is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write OLD=NEW, such as rbc=RBC")
    return names[0], names[1]


def rename(source: Source, wishes: Sequence[tuple[str, str]]) -> None:
    """Rename the box classes of the source, all at once; where several become one, the first gives the place."""
    new = dict(wishes)
    for old in new:
        if old not in source.names:
            close = get_close_matches(old, source.names, 1, 0.5)
            close += [name for name in source.names if name.casefold() == old.casefold()]
            raise ConversionError(
                f"--rename {old}={new[old]}: there is no box class {old} (there are {', '.join(source.names) or 'none'})"
                f"{f'; did you mean {close[0]}?' if close else ''}"
            )
    source.names = list(dict.fromkeys(new.get(name, name) for name in source.names))
    for annotation in source.annotations.values():
        annotation.objects = [thing._replace(name=new.get(thing.name, thing.name)) for thing in annotation.objects]
