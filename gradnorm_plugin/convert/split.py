"""Which images are for training, validation and test: as the source has it, as lists say, or drawn by class with a seed.

In a drawn split each class has its share in each part, and what belongs together stays together: copies of one picture, and the
images of one group (a patient, a film, a part), which a column of the table or the file names tell.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.sparse import coo_array  # type: ignore[import-untyped]  # it has no types of its own
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

from gradnorm_plugin.convert.annotations import ImageLabels, Source
from gradnorm_plugin.convert.image_files import ImageIndex, Picture, split_of_name
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown
from gradnorm_plugin.pictures import nearest

SPLITS = ("train", "val", "test")
_TRIALS = 100
_STEPS = 200_000  # groups placed in all trials together: some seconds


def draw(
    images: Sequence[Path],
    classes: Mapping[Path, int],
    pictures: Mapping[Path, Picture],
    val_share: float,
    test_share: float,
    seed: int,
    groups: Mapping[Path, str] | None = None,
) -> dict[str, list[Path]]:
    """A split drawn so that each class (and the images without one) has its share in each part; the same for a seed.

    Copies of one picture stay together, and so do the images of one of the `groups`.

    Raises:
        ConversionError: if there are too few images.
    """
    if groups is not None:
        shares = {"train": 1 - val_share - test_share, "val": val_share, "test": test_share}
        shares = {split: share for split, share in shares.items() if share}
        digests = {image: pictures[image].digest for image in images}
        return draw_units(units_of(images, digests, groups), classes, shares, seed)
    copies: dict[bytes, list[Path]] = {}
    for image in images:
        copies.setdefault(pictures[image].digest, []).append(image)
    drawn, rest = {}, [group[0] for group in copies.values()]
    total = len(rest)
    for split, share in (("test", test_share), ("val", val_share)):
        if share:
            rest, drawn[split] = _take(rest, classes, max(1, round(share * total)), seed)
    drawn["train"] = rest
    order = {image: place for place, image in enumerate(images)}
    return {
        split: sorted((copy for image in drawn[split] for copy in copies[pictures[image].digest]), key=order.__getitem__)
        for split in SPLITS
        if split in drawn
    }


def _take(images: list[Path], classes: Mapping[Path, int], count: int, seed: int) -> tuple[list[Path], list[Path]]:
    """(the rest, `count` images), by class as far as the classes are large enough: small ones are drawn as one group."""
    if count >= len(images):
        raise ConversionError(
            f"{len(images)} different images are too few to take {count} of them: give a split by --split, or fewer"
        )
    strata = [classes.get(image, -1) for image in images]
    sizes = Counter(strata)
    # Every stratum needs two images, and a place in both parts.
    while len(sizes) > 1 and (min(sizes.values()) < 2 or len(sizes) > min(count, len(images) - count)):
        (small, _), (next_small, _) = sorted(sizes.items(), key=lambda item: (item[1], item[0]))[:2]
        strata = [next_small if stratum == small else stratum for stratum in strata]
        sizes = Counter(strata)
    rest, taken = train_test_split(images, test_size=count, random_state=seed, stratify=strata if len(sizes) > 1 else None)
    return list(rest), list(taken)


def units_of(images: Sequence[Path], digests: Mapping[Path, bytes], groups: Mapping[Path, str]) -> list[list[Path]]:
    """The images that must not be parted: those of a group, and copies of one picture, whose digests are equal."""
    first: dict[object, int] = {}
    links = [
        (place, first.setdefault(key, place))
        for place, image in enumerate(images)
        for key in (digests[image], *([groups[image]] if image in groups else []))
    ]
    rows, columns = zip(*links, strict=True)
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(images), len(images)))
    count, unit = connected_components(graph, directed=False)
    found: list[list[Path]] = [[] for _ in range(count)]
    for image, number in zip(images, unit, strict=True):
        found[number].append(image)
    return found


def draw_units(
    units: Sequence[Sequence[Path]], classes: Mapping[Path, int], shares: Mapping[str, float], seed: int
) -> dict[str, list[Path]]:
    """Each unit in one of the parts, so that each class has its share in each part as far as whole units allow.

    Of many orders, drawn with the seed, in which each unit goes to the part that lacks most of what it has, the one that ends
    nearest to the shares counts.

    Raises:
        ConversionError: if there are fewer units than parts.
    """
    if len(units) < len(shares):
        raise ConversionError(
            f"{len(units)} groups are too few for {' and '.join(shares)}: correct the groups, or give a split by --split"
        )
    strata = {
        stratum: place for place, stratum in enumerate(sorted({classes.get(image, -1) for unit in units for image in unit}))
    }
    counts = np.zeros((len(units), len(strata)))
    for number, unit in enumerate(units):
        for image in unit:
            counts[number, strata[classes.get(image, -1)]] += 1
    wanted = np.outer(list(shares.values()), counts.sum(0))
    random = np.random.default_rng(seed)
    trials = (_placed(counts, wanted, random.permutation(len(units))) for _ in range(max(1, min(_TRIALS, _STEPS // len(units)))))
    _, part = min(trials, key=lambda trial: trial[0])
    return {
        name: [image for unit, place in zip(units, part, strict=True) if place == number for image in unit]
        for number, name in enumerate(shares)
    }


def _placed(counts: np.ndarray, wanted: np.ndarray, order: np.ndarray) -> tuple[float, np.ndarray]:
    """(squared distance from what is wanted, relative to each class's size; the part of each unit)."""
    weight = 1 / wanted.sum(0)
    lacking, part = wanted.copy(), np.zeros(len(counts), int)
    empty = set(range(len(wanted)))
    for done, unit in enumerate(order):
        need = lacking @ (counts[unit] * weight)
        allowed = sorted(empty) if len(order) - done <= len(empty) else range(len(wanted))
        part[unit] = max(allowed, key=need.__getitem__)
        empty.discard(int(part[unit]))
        lacking[part[unit]] -= counts[unit]
    return float((lacking**2 * weight).sum()), part


DEFAULT_VAL_SHARE = 0.2


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
