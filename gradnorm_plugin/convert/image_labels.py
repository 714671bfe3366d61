"""What is known about the images as a whole: their class first, then all other image outputs."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from gradnorm_plugin.convert.classes import image_classes
from gradnorm_plugin.convert.image_outputs import OutputReader, Wish
from gradnorm_plugin.convert.oddities import ConversionError, Kind
from gradnorm_plugin.convert.source import Source
from gradnorm_plugin.convert.tables import Row, Table, image_column, read_table
from gradnorm_plugin.labels import LabelRecord
from gradnorm_plugin.outputs import CLASS, Classes, ImageOutput, LabelSet, Outputs, Target, Value, class_output, label_rules


@dataclass(frozen=True)
class ImageLabels:
    """The image outputs, and for each by name the targets of the images that have one."""

    outputs: Outputs
    targets: Mapping[str, Mapping[Path, Target]]

    def added_to(self, record: LabelRecord, image: Path) -> LabelRecord:
        """The record with the lines of the image outputs; `class` goes without its name wherever that is allowed."""
        named = {name: targets[image] for name, targets in self.targets.items() if image in targets}
        bare = label_rules(self.outputs).unnamed == CLASS and CLASS in named
        return replace(record, image_class=int(named.pop(CLASS)[0]) if bare else None, named=named)

    def contradict(self, image: Path, other: Path) -> bool:
        """Whether two images have different targets for some output."""
        return any(
            image in targets and other in targets and targets[image] != targets[other] for targets in self.targets.values()
        )

    def strata(self) -> dict[Path, int]:
        """The stratum of each image in a drawn split: the class of the first output that has classes, else the rarest of the
        image's labels, else the quartile of its value."""
        first = next((output for kind in (Classes, LabelSet, Value) for output in self.outputs if isinstance(output, kind)), None)
        if first is None:
            return {}
        targets = self.targets[first.name]
        if isinstance(first, Classes):
            return {image: int(target[0]) for image, target in targets.items()}
        if isinstance(first, Value):
            quarters = np.quantile([target[0] for target in targets.values()], (0.25, 0.5, 0.75))
            return {image: int(np.searchsorted(quarters, target[0])) for image, target in targets.items()}
        present = {image: [label for label, there in enumerate(target) if there] for image, target in targets.items()}
        counts = Counter(label for labels in present.values() for label in labels)
        return {image: min(labels, key=lambda label: counts[label], default=first.width) for image, labels in present.items()}


def image_labels(options: argparse.Namespace, source: Source, images: Sequence[Path]) -> ImageLabels:
    """The image outputs, and the targets of the images for each.

    The class comes first. With `--output`, there is a class only if a flag, or a one-hot line, supplies it.
    """
    wishes, wished = list(options.output), {wish.name for wish in options.output}
    kept = [output for output in source.outputs if output.name not in wished]
    by_csv = options.classes_csv and options.classes_from in (None, "csv") and not options.class_pattern
    asked = options.classes_from or options.csv_columns or options.class_key or options.image_class or options.class_pattern
    if wishes and by_csv and (options.csv_columns or options.classes_from or (options.image_class and not options.class_key)):
        column = options.csv_columns[1] if options.csv_columns else ""
        wishes.insert(0, Wish(CLASS, column, names=tuple(options.image_class)))
        asked = None
    elif not wishes:
        asked = asked or options.classes_csv or not kept
    if source.image_classes and not any(wish.name == CLASS for wish in wishes):
        asked = asked or "one-hot lines"
    outputs: list[ImageOutput] = []
    targets: dict[str, dict[Path, Target]] = {}
    if asked:
        names, class_of = image_classes(options, source, images)
        outputs.append(class_output(names))
        targets[CLASS] = {image: (place,) for image, place in class_of.items()}
    for output in kept:
        found = source.said.get(output.name, {})
        outputs.append(output)
        targets[output.name] = {image: found[image] for image in images if image in found}
        _note_missing(output.name, images, found, source)
    table = _table(options, wishes, source) if wishes else Table((), "", [])
    for reader in [OutputReader(wish, table, images, source, options.min_images) for wish in wishes]:
        read = {Classes.kind: reader.classes, LabelSet.kind: reader.labels, Value.kind: reader.values}[reader.wish.kind]
        output, targets[reader.wish.name] = read()
        outputs.append(output)
        if reader.wish.kind != Classes.kind:
            _note_missing(output.name, images, {*targets[output.name], *reader.bad}, source)
    return ImageLabels(tuple(outputs), targets)


def _note_missing(name: str, images: Sequence[Path], found: Any, source: Source) -> None:
    for image in images:
        if image not in found:
            source.note(Kind.NO_LINE, image, name)


def _table(options: argparse.Namespace, wishes: Sequence[Wish], source: Source) -> Table:
    """The CSV file, else the images' own entries in the form of a table."""
    if options.classes_csv:
        image = image_column(options, "name it by --csv-image COLUMN")
        return read_table(options, source, image, lambda header: [column for wish in wishes for column in wish.columns(header)])
    if not source.entries:
        raise ConversionError("--output reads columns of a table, and there is none: name it by --classes-csv FILE")
    known = source.entry_keys()
    rows = [
        Row(image, where, [_text(entry.get(key)) for key in known])
        for image, entries in source.entries.items()
        for where, entry in entries
    ]
    return Table(known, "the entries of the annotations", rows)


def _text(value: Any) -> str:
    """A JSON value as the text of a table cell."""
    return "" if value is None else value if isinstance(value, str) else dumps(value, ensure_ascii=False)
