"""Random splits with a seed, stratified by class, which keep together what belongs together.

Copies of one picture belong together, and so do the images of a group (a patient, a film, a part), which a column of the table or
a pattern in the file names identifies.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array  # type: ignore[import-untyped]  # it has no types of its own
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

from gradnorm_plugin.convert.boxes import clean_name
from gradnorm_plugin.convert.classes import from_pattern
from gradnorm_plugin.convert.oddities import ConversionError, Kind
from gradnorm_plugin.convert.source import Source
from gradnorm_plugin.convert.tables import agreed, image_column, named_column, read_table

_TRIALS = 100
_STEPS = 200_000  # groups placed in all trials together: some seconds


def groups_of(options: argparse.Namespace, images: Sequence[Path], source: Source) -> dict[Path, str] | None:
    """The group of each image that has one; None if no flag asks for groups."""
    if options.group_pattern:
        found, flag = from_pattern(options.group_pattern, source.index), f"--group-pattern {options.group_pattern.pattern}"
    elif options.group:
        found, flag = _groups_of_table(options, source), f"--group {options.group}"
    else:
        return None
    found = {image: found[image] for image in images if image in found}
    if not found:
        raise ConversionError(f"{flag} gives no image a group ({source.index.key(images[0])}, for instance): correct it")
    for image in images:
        if image not in found:
            source.note(Kind.NO_GROUP, image)
    return found


def _groups_of_table(options: argparse.Namespace, source: Source) -> dict[Path, str]:
    image = image_column(options, "name it by --csv-columns IMAGE CLASS, or --csv-image")
    column = named_column(options.group, "correct --group", f"the group `{options.group}`")
    # Odd rows are reported where the classes are read from them
    table = read_table(options, Source(source.index), image, lambda header: [column])
    place = table.place(column)
    found: dict[Path, list[tuple[str, str]]] = defaultdict(list)
    for row in table.rows:
        if group := clean_name(row.cells[place]):
            found[row.image].append((row.where, group))
    return agreed(found, source, lambda one, other: f"is of the group {one} and of {other}")


def draw(
    images: Sequence[Path],
    classes: Mapping[Path, int],
    digests: Mapping[Path, bytes],
    shares: Mapping[str, float],
    seed: int,
    groups: Mapping[Path, str] | None = None,
) -> dict[str, list[Path]]:
    """A random split in which each class (and the images without one) is spread by `shares`; the same for the same seed.

    Copies of one picture (equal digests) stay together, and so do the images of a group.
    """
    if groups is not None:
        return draw_units(units_of(images, digests, groups), classes, shares, seed)
    copies: dict[bytes, list[Path]] = defaultdict(list)
    for image in images:
        copies[digests[image]].append(image)
    rest, drawn = [group[0] for group in copies.values()], {}
    total, (first, *others) = len(rest), shares
    for part in reversed(others):
        rest, drawn[part] = _take(rest, classes, max(1, round(shares[part] * total)), seed)
    drawn[first] = rest
    part_of = {digests[image]: part for part, taken in drawn.items() for image in taken}
    return {part: [image for image in images if part_of[digests[image]] == part] for part in shares}


def _take(images: list[Path], classes: Mapping[Path, int], count: int, seed: int) -> tuple[list[Path], list[Path]]:
    """Draw `count` images, stratified by class where classes are large enough (small ones are pooled): (the rest, the drawn)."""
    if count >= len(images):
        raise ConversionError(
            f"{len(images)} different images are too few to take {count} of them: give a split by --split, or fewer"
        )
    strata = [classes.get(image, -1) for image in images]
    sizes = Counter(strata)
    # Each stratum needs at least two images, and one in either part.
    while len(sizes) > 1 and (min(sizes.values()) < 2 or len(sizes) > min(count, len(images) - count)):
        (small, _), (next_small, _) = sorted(sizes.items(), key=lambda item: (item[1], item[0]))[:2]
        strata = [next_small if stratum == small else stratum for stratum in strata]
        sizes = Counter(strata)
    rest, taken = train_test_split(images, test_size=count, random_state=seed, stratify=strata if len(sizes) > 1 else None)
    return list(rest), list(taken)


def units_of(images: Sequence[Path], digests: Mapping[Path, bytes], groups: Mapping[Path, str]) -> list[list[Path]]:
    """The images that must stay together: those of a group, and copies of one picture (equal digests)."""
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
    """Assign whole units to the parts so that each class is spread by `shares` as well as possible.

    Units are placed in many random orders, each into the part that most lacks what it holds; the best outcome is taken.
    """
    if len(units) < len(shares):
        raise ConversionError(
            f"{len(units)} groups are too few for {' and '.join(shares)}: correct the groups, or give a split by --split"
        )
    strata = sorted({classes.get(image, -1) for unit in units for image in unit})
    counts = np.zeros((len(units), len(strata)))
    for number, unit in enumerate(units):
        for image in unit:
            counts[number, strata.index(classes.get(image, -1))] += 1
    wanted = np.outer(list(shares.values()), counts.sum(0))
    random = np.random.default_rng(seed)
    trials = (_placed(counts, wanted, random.permutation(len(units))) for _ in range(max(1, min(_TRIALS, _STEPS // len(units)))))
    _, part = min(trials, key=lambda trial: trial[0])
    return {
        name: [image for unit, place in zip(units, part, strict=True) if place == number for image in unit]
        for number, name in enumerate(shares)
    }


def _placed(counts: np.ndarray, wanted: np.ndarray, order: np.ndarray) -> tuple[float, np.ndarray]:
    """(squared distance from what is wanted, relative to the size of each class; the part of each unit)."""
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
