"""Which images are for training, validation and test: given by lists or the source, or drawn; and checks for overlap."""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from gradnorm_plugin.convert.drawing import draw
from gradnorm_plugin.convert.image_files import ImageIndex, Picture, split_of_name
from gradnorm_plugin.convert.image_labels import ImageLabels
from gradnorm_plugin.convert.oddities import ConversionError, Kind, shown
from gradnorm_plugin.convert.source import Source
from gradnorm_plugin.pictures import nearest

SPLITS = ("train", "val", "test")
DEFAULT_VAL_SHARE = 0.2

Split = dict[str, list[Path]]
Pictures = Mapping[Path, Picture]


def fixed_split(options: argparse.Namespace, source: Source, images: Sequence[Path]) -> Split | None:
    """The split given by flags or the source, each image in one part only; None if it is to be drawn."""
    drawn = options.val_share is not None or options.test_share is not None or options.group or options.group_pattern
    if drawn and not options.split:
        return None
    lists = dict(zip(SPLITS, options.split or (), strict=False)) or _voc_lists(options.source)
    if lists:
        splits = {split: listed(file, source) for split, file in lists.items()}
    else:
        splits = source.splits or _split_folders(source.index)
    if not splits:
        return None
    owner: dict[Path, str] = {}
    for split in SPLITS:  # an image in several belongs to the last
        for image in dict.fromkeys(splits.get(split, ())):
            if image in owner:
                source.note(Kind.TWO_SPLITS, image, f"{owner[image]}, {split}")
            owner[image] = split
    found: Split = defaultdict(list)
    for image in images:
        if image in owner:
            found[owner[image]].append(image)
        else:
            source.note(Kind.NO_SPLIT, image)
    if not found["train"]:
        raise ConversionError(
            "the split leaves no image to train on (an image in several splits counts for val or test): give lists by "
            "--split train.txt val.txt, or have one drawn by --val-share 0.2"
        )
    return dict(found)


def _voc_lists(source: Path) -> dict[str, Path]:
    """Pascal VOC's lists of ids for each split: ImageSets/Main/train.txt or ImageSets/train.txt, and so on."""
    for folder in (source / "ImageSets" / "Main", source / "ImageSets"):
        found = {split: folder / f"{split}.txt" for split in SPLITS if (folder / f"{split}.txt").is_file()}
        if found:
            return found
    return {}


def _split_folders(index: ImageIndex) -> Split:
    """The images below folders called train, val, test or the like."""
    found: Split = defaultdict(list)
    for image in index.files:
        names = map(split_of_name, PurePosixPath(index.key(image)).parent.parts)
        if split := next((split for split in names if split), None):
            found[split].append(image)
    return found


def listed(file: Path, source: Source, near: Path | None = None) -> list[Path]:
    """The images named in a list, one per line by path, file name or stem; of several matches the nearest to `near`."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConversionError(f"{shown(file)}: cannot be read as a list of images: {reason}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        images = source.index.find(line, near) if line.strip() else []
        if len(images) == 1:
            found.append(images[0])
        elif line.strip():
            fits = ", fits " + ", ".join(map(source.index.key, images)) if images else ""
            source.note(Kind.LINE_WITHOUT_IMAGE, f"{shown(file)}:{number}", line.strip() + fits)
    return found


def whole_split(
    options: argparse.Namespace,
    source: Source,
    fixed: Split | None,
    images: Sequence[Path],
    strata: Mapping[Path, int],
    pictures: Pictures,
    groups: Mapping[Path, str] | None,
) -> Split:
    """The images of train, val and perhaps test; what is missing from `fixed` is drawn, with `groups` kept together."""
    val, test = options.val_share or DEFAULT_VAL_SHARE, options.test_share or 0.0
    digests = {image: pictures[image].digest for image in images}
    if fixed is None:
        shares = {"train": 1 - val - test, "val": val, **({"test": test} if test else {})}
        parts = draw(images, strata, digests, shares, options.seed, groups)
    elif "val" not in fixed:
        parts = {**fixed, **draw(fixed["train"], strata, digests, {"train": 1 - val, "val": val}, options.seed, groups)}
        drawn = f"{len(parts['val'])} of {len(fixed['train'])} images, seed {options.seed}"
        source.note(Kind.NO_VAL, shown(options.source), drawn)
    else:
        parts = fixed
    return {name: parts[name] for name in SPLITS if name in parts}


def check_split(
    splits: Mapping[str, Sequence[Path]],
    labels: ImageLabels,
    pictures: Pictures,
    groups: Mapping[Path, str] | None,
    source: Source,
) -> None:
    """Note pictures that occur twice, or nearly, and groups that are in several splits."""
    _check_copies(splits, labels, pictures, source)
    _check_likeness(splits, labels, pictures, source)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for split, images in splits.items():
        for image in images:
            if groups and image in groups:
                found[groups[image]][split] += 1
    for group, counts in found.items():
        if len(counts) > 1:
            source.note(Kind.GROUP_APART, group, ", ".join(f"{split} {count}" for split, count in counts.items()))


def _check_copies(splits: Mapping[str, Sequence[Path]], labels: ImageLabels, pictures: Pictures, source: Source) -> None:
    """Note pictures that occur twice: in one split, in two, or with different labels."""
    seen: dict[bytes, tuple[str, Path]] = {}
    for split, images in splits.items():
        for image in images:
            first_split, first = seen.setdefault(pictures[image].digest, (split, image))
            if first == image:
                continue
            kind = Kind.SAME_PICTURE if first_split == split else Kind.LEAK if first_split == "train" else Kind.VAL_IN_TEST
            source.note(kind, image, f"{first_split}: {source.index.key(first)}")
            if labels.contradict(image, first):
                source.note(Kind.TWO_CLASSES, image, source.index.key(first))


def _check_likeness(splits: Mapping[str, Sequence[Path]], labels: ImageLabels, pictures: Pictures, source: Source) -> None:
    """Note pictures of val and test that are nearly, but not exactly, ones of an earlier split."""
    earlier: list[tuple[str, Path]] = []
    for split, all_images in splits.items():
        copies = {pictures[image].digest for _, image in earlier}
        images = [image for image in all_images if pictures[image].digest not in copies]
        known = [pictures[image].thumbnail for _, image in earlier]
        for place, other in nearest([pictures[image].thumbnail for image in images], known):
            (its_split, twin), image = earlier[other], images[place]
            apart = ", of another class" if labels.contradict(image, twin) else ""
            source.note(Kind.NEAR, image, f"{its_split}: {source.index.key(twin)}{apart}")
        earlier += [(split, image) for image in all_images]
