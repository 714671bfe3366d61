"""Groups of images that one split keeps together: of a patient, a film, a part. Told by a column or by file names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gradnorm_plugin.convert.annotations import clean_name
from gradnorm_plugin.convert.classes import (
    csv_rows,
    from_pattern,
    image_places,
    places_of,
    refuse_contradictions,
    the_column,
)
from gradnorm_plugin.convert.image_files import ImageIndex
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown


def groups_of(
    options: argparse.Namespace, images: Sequence[Path], index: ImageIndex, oddities: Oddities
) -> dict[Path, str] | None:
    """The group of each of `images` that has one; None if no flag asks for groups.

    Raises:
        ConversionError: if none has, or the table cannot be read or contradicts itself.
    """
    if options.group_pattern:
        found, flag = from_pattern(options.group_pattern, index), f"--group-pattern {options.group_pattern.pattern}"
    elif options.group:
        found, flag = _from_csv(options, index), f"--group {options.group}"
    else:
        return None
    found = {image: found[image] for image in images if image in found}
    if not found:
        raise ConversionError(f"{flag} gives no image a group ({index.key(images[0])}, for instance): correct it")
    for image in images:
        if image not in found:
            oddities.add(Kind.NO_GROUP, index.key(image))
    return found


def _from_csv(options: argparse.Namespace, index: ImageIndex) -> dict[Path, str]:
    named = options.csv_image or (options.csv_columns[0] if options.csv_columns else None)

    def images_at(header: Sequence[str]) -> list[int]:
        return places_of(header, (named,)) if named else image_places(header)

    def groups_at(header: Sequence[str]) -> list[int]:
        exact = [place for place, title in enumerate(header) if title.strip() == options.group]
        return exact or places_of(header, (options.group,))

    def places(header: Sequence[str], where: str) -> tuple[int, int]:
        image = the_column(header, "the image", images_at(header), where, "name it by --csv-columns IMAGE CLASS, or --csv-image")
        return image, the_column(header, f"the group `{options.group}`", groups_at(header), where, "correct --group")

    def fitness(header: Sequence[str]) -> int:
        return bool(images_at(header)) + bool(groups_at(header))

    found: dict[Path, str] = {}
    lines: dict[Path, int] = {}
    contradictions = []
    # What is odd about the rows is told where the classes are read from them
    for image, line, (cell,) in csv_rows(options.classes_csv, fitness, places, index, Oddities(), options.csv_encoding):
        group = clean_name(cell)
        if group is None:
            continue
        if found.setdefault(image, group) != group:
            where = f"{shown(options.classes_csv)}:{lines[image]} and {line}"
            contradictions.append(f"{where}: {index.key(image)} is of the group {found[image]} and of {group}")
        lines.setdefault(image, line)
    refuse_contradictions(contradictions)
    return found
