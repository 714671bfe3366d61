"""Which images are for training, validation and test: as the source has it, as lists say, or drawn by class with a seed."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from gradnorm_plugin.convert.annotations import ImageLabels, Source
from gradnorm_plugin.convert.drawing import SPLITS, draw
from gradnorm_plugin.convert.image_files import ImageIndex, Picture
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown
from gradnorm_plugin.likeness import nearest

DEFAULT_VAL_SHARE = 0.2
_SPLIT_NAME = re.compile(r"(train|val|test)(ing|id|idation)?[0-9]*")


def split_of_name(name: str) -> str | None:
    """The split that a folder or a part of a file's name means: train, training, val, valid, validation, test, train2017."""
    found = _SPLIT_NAME.fullmatch(name.lower())
    return found.group(1) if found else None


def split_of_path(path: PurePosixPath) -> str | None:
    """The split that the file name's parts mean (`instances_val2017.json`), or else the nearest folder."""
    parts = [*re.split(r"[-_. ]", path.stem), *reversed(path.parent.parts)]
    return next((split for split in map(split_of_name, parts) if split), None)


def from_folders(index: ImageIndex) -> dict[str, list[Path]]:
    """The images below folders that are called train, val, test or alike."""
    found: dict[str, list[Path]] = {}
    for image in index.files:
        names = map(split_of_name, PurePosixPath(index.key(image)).parent.parts)
        if split := next((split for split in names if split), None):
            found.setdefault(split, []).append(image)
    return found


def voc_lists(source: Path) -> dict[str, Path]:
    """Pascal VOC's lists of ids by split: ImageSets/Main/train.txt or ImageSets/train.txt, and so on."""
    for folder in (source / "ImageSets" / "Main", source / "ImageSets"):
        found = {split: folder / f"{split}.txt" for split in SPLITS if (folder / f"{split}.txt").is_file()}
        if found:
            return found
    return {}


def from_lists(lists: Mapping[str, Path], index: ImageIndex, oddities: Oddities) -> dict[str, list[Path]]:
    """The images that the lists name.

    Raises:
        ConversionError: if a list cannot be read.
    """
    return {split: listed(file, index, oddities) for split, file in lists.items()}


def listed(file: Path, index: ImageIndex, oddities: Oddities, near: Path | None = None) -> list[Path]:
    """The images that a list names, one a line: a path, a file name or its stem; of several that fit, those that lie `near`.

    Raises:
        ConversionError: if it cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConversionError(f"{shown(file)}: cannot be read as a list of images: {reason}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        images = index.find(line, near)
        if len(images) == 1:
            found.append(images[0])
        else:
            fits = ", fits " + ", ".join(map(index.key, images)) if images else ""
            oddities.add(Kind.LINE_WITHOUT_IMAGE, f"{shown(file)}:{number}", line.strip() + fits)
    return found


def settle_fixed(
    splits: Mapping[str, Sequence[Path]], images: Sequence[Path], index: ImageIndex, oddities: Oddities
) -> dict[str, list[Path]]:
    """Those of `images` in each split, each image in one only.

    Raises:
        ConversionError: if no image is left to train on.
    """
    owner: dict[Path, str] = {}
    for split in SPLITS:  # a later one takes an image from an earlier one
        for image in dict.fromkeys(splits.get(split, ())):
            if image in owner:
                oddities.add(Kind.TWO_SPLITS, index.key(image), f"{owner[image]}, {split}")
            owner[image] = split
    found: dict[str, list[Path]] = {}
    for image in images:
        if image in owner:
            found.setdefault(owner[image], []).append(image)
        else:
            oddities.add(Kind.NO_SPLIT, index.key(image))
    if not found.get("train"):
        raise ConversionError(
            "the split leaves no image to train on (an image in several splits counts for val or test): give lists by "
            "--split train.txt val.txt, or have one drawn by --val-share 0.2"
        )
    return found


def check_copies(
    splits: Mapping[str, Sequence[Path]],
    labels: ImageLabels,
    pictures: Mapping[Path, Picture],
    index: ImageIndex,
    oddities: Oddities,
) -> None:
    """Note pictures that occur twice: in one split, in two, or in two classes (which none of them can be)."""
    seen: dict[bytes, tuple[str, Path]] = {}
    for split in SPLITS:
        for image in splits.get(split, ()):
            first_split, first = seen.setdefault(pictures[image].digest, (split, image))
            if first == image:
                continue
            kind = Kind.SAME_PICTURE if first_split == split else Kind.LEAK if first_split == "train" else Kind.VAL_IN_TEST
            oddities.add(kind, index.key(image), f"{first_split}: {index.key(first)}")
            if labels.contradict(image, first):
                oddities.add(Kind.TWO_CLASSES, index.key(image), index.key(first))


def check_groups(splits: Mapping[str, Sequence[Path]], groups: Mapping[Path, str], oddities: Oddities) -> None:
    """Note groups that have images in several splits, which a drawn split has not."""
    found: dict[str, Counter[str]] = {}
    for split, images in splits.items():
        for image in images:
            if image in groups:
                found.setdefault(groups[image], Counter())[split] += 1
    for group, counts in found.items():
        if len(counts) > 1:
            oddities.add(Kind.GROUP_APART, group, ", ".join(f"{split} {count}" for split, count in counts.items()))


def check_likeness(
    splits: Mapping[str, Sequence[Path]],
    labels: ImageLabels,
    pictures: Mapping[Path, Picture],
    index: ImageIndex,
    oddities: Oddities,
) -> None:
    """Note pictures of val and test that are nearly those of an earlier split; copies are told by `check_copies`."""
    earlier: list[tuple[str, Path]] = []
    for split in SPLITS:
        copies = {pictures[image].digest for _, image in earlier}
        images = [image for image in splits.get(split, ()) if pictures[image].digest not in copies]
        known = [pictures[image].thumbnail for _, image in earlier]
        for place, other in nearest([pictures[image].thumbnail for image in images], known):
            (its_split, twin), image = earlier[other], images[place]
            apart = ", of another class" if labels.contradict(image, twin) else ""
            oddities.add(Kind.NEAR, index.key(image), f"{its_split}: {index.key(twin)}{apart}")
        earlier += [(split, image) for image in splits.get(split, ())]


def fixed_split(
    options: argparse.Namespace, source: Source, images: Sequence[Path], index: ImageIndex, oddities: Oddities
) -> dict[str, list[Path]] | None:
    """The split that is given or that the source has; None if one is to be drawn.

    Raises:
        ConversionError: if it cannot be used.
    """
    drawn = options.val_share is not None or options.test_share is not None or options.group or options.group_pattern
    if drawn and not options.split:
        return None
    given: dict[str, Path] = dict(zip(SPLITS, options.split or (), strict=False))
    lists = given or voc_lists(options.source)
    found = from_lists(lists, index, oddities) if lists else source.splits or from_folders(index)
    return settle_fixed(found, images, index, oddities) if found else None


def whole_split(
    options: argparse.Namespace,
    fixed: Mapping[str, list[Path]] | None,
    images: Sequence[Path],
    class_of: Mapping[Path, int],
    pictures: Mapping[Path, Picture],
    groups: Mapping[Path, str] | None,
    oddities: Oddities,
) -> dict[str, list[Path]]:
    """The images of train, val and perhaps test; what `fixed` lacks is drawn, and keeps `groups` together.

    Raises:
        ConversionError: if there are too few to draw from.
    """
    share = options.val_share or DEFAULT_VAL_SHARE
    parts: dict[str, list[Path]]
    if fixed is None:
        parts = draw(images, class_of, pictures, share, options.test_share or 0.0, options.seed, groups)
    elif "val" not in fixed:
        parts = {**fixed, **draw(fixed["train"], class_of, pictures, share, 0.0, options.seed, groups)}
        oddities.add(
            Kind.NO_VAL, shown(options.source), f"{len(parts['val'])} of {len(fixed['train'])} images, seed {options.seed}"
        )
    else:
        parts = dict(fixed)
    return {name: parts[name] for name in SPLITS if name in parts}
