"""The report of a conversion: what the result holds, and what was odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gradnorm_plugin.convert.oddities import Kind, Oddities
from gradnorm_plugin.convert.write import Sample


def count(
    splits: Mapping[str, Sequence[Sample]], names: Sequence[str], classification_names: Sequence[str], oddities: Oddities
) -> list[tuple[str, str, str]]:
    """(split, boxes in words, image classes in words) of each split; classes that a split lacks are noted as odd."""
    rows = []
    for split, samples in splits.items():
        records = [sample.record for sample in samples]
        boxes = Counter(shape.class_index for record in records for shape in (*record.boxes, *record.polygons))
        classes = Counter(record.image_class for record in records)
        for number, kind, listed in ((boxes, "boxes", names), (classes, "images", classification_names)):
            for index, name in enumerate(listed):
                if not number[index]:
                    oddities.add(Kind.CLASS_NOT_IN_SPLIT, split, f"no {kind} of {name}")
        background = sum(not record.boxes and not record.polygons for record in records)
        rows.append(
            (
                f"{split}: {len(samples)} images",
                ", ".join([f"{name} {boxes[index]}" for index, name in enumerate(names)] + [f"{background} images without"]),
                ", ".join(
                    [f"{name} {classes[index]}" for index, name in enumerate(classification_names)] + [f"{classes[None]} without"]
                ),
            )
        )
    return rows


def to_text(rows: Sequence[tuple[str, str, str]]) -> str:
    """For the screen."""
    return "\n".join(f"{split}\n    boxes: {boxes}\n    image classes: {classes}" for split, boxes, classes in rows)


def to_markdown(rows: Sequence[tuple[str, str, str]], oddities: Oddities) -> str:
    """The whole report."""
    lines = ["# Conversion", "", "| split | boxes | image classes |", "|---|---|---|"]
    lines += [f"| {' | '.join(cell.replace('|', ' ') for cell in row)} |" for row in rows]
    return "\n".join([*lines, "", "What was odd, and what was done with it:", "", oddities.markdown()])
