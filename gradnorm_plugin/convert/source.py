"""The content of a source of labels in any format: each reader fills a `Source`."""

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
"""Keys under which an image's entry commonly has its class."""


@dataclass
class Source:
    """Everything a source says about the images of `index`, by image file, and what was odd about it.

    `names` are the box classes in the source's order, `splits` the images of train, val and test. Images in `faulty` have an
    unreadable annotation. `complete`: an image missing from `annotations` is a background, else it is left out.

    Statements about a whole image are its `entries`, each with its place; the class is under the first of `class_keys` that an
    entry has, unless there are `rival_keys`. YOLO has `image_classes` instead, in the order of `image_class_order`, and `said`
    for its image `outputs`.
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
        """Note an oddity of an image or at a place."""
        self.oddities.add(kind, self.index.key(where) if isinstance(where, Path) else where, detail)

    def the_one(self, images: Sequence[Path], where: str, absent: str = "no such image") -> Path | None:
        """The only image that an annotation fits; if there are none or several, that is noted, and they are left out."""
        if len(images) == 1:
            return images[0]
        self.note(Kind.AMBIGUOUS if images else Kind.NO_IMAGE, where, ", ".join(map(self.index.key, images)) or absent)
        self.faulty.update(images)
        return None

    def begin(self, image: Path, where: str, size: tuple[float, float] | None = None) -> Annotation:
        """The annotation of an image, created on first use; repeated use is noted."""
        if image in self.annotations:
            self.note(Kind.LISTED_TWICE, where, f"{self.annotations[image].where} is the same image")
        annotation = self.annotations.setdefault(image, Annotation([], where, size))
        annotation.size = annotation.size or size
        return annotation

    def take_names(self, order: Sequence[str] = ()) -> None:
        """Set the box classes to those of the objects: in this order, the others alphabetically."""
        found = {thing.name for annotation in self.annotations.values() for thing in annotation.objects}
        self.names = [name for name in dict.fromkeys(order) if name in found] + sorted(found - set(order))

    def entry_keys(self) -> list[str]:
        """All keys of the entries."""
        return list(dict.fromkeys(str(key) for rows in self.entries.values() for _, entry in rows for key in entry))


def read_renaming(text: str) -> tuple[str, str]:
    """Old and new name of one `--rename`."""
    old, _, new = text.rpartition("=")
    names = clean_name(old), clean_name(new)
    if names[0] is None or names[1] is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write OLD=NEW, such as rbc=RBC")
    return names[0], names[1]


def rename(source: Source, wishes: Sequence[tuple[str, str]]) -> None:
    """Rename box classes, all at once; merged classes take the place of the first of them."""
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
