"""Writing the joint data set and the conversion report, completely or not at all."""

from __future__ import annotations

import glob
import html
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import yaml
from tqdm import tqdm

from gradnorm_plugin.convert.image_files import Picture, read_deep
from gradnorm_plugin.convert.oddities import ConversionError, Kind, Oddities, shown
from gradnorm_plugin.labels import LabelRecord, write_label_file
from gradnorm_plugin.outputs import CLASS, Outputs, describe_outputs, label_rules

REPORT = "conversion.md"

Row = list[tuple[str, str]]
"""A split in words, as (title, content): its name and number of images, its boxes, and each image output."""


class Sample(NamedTuple):
    """One image of the result: source file, name in the result, label record, and content."""

    image: Path
    name: str
    record: LabelRecord
    picture: Picture


def check_place(out: Path, sources: Sequence[Path], overwrite: bool) -> None:
    """Refuse to overwrite anything but an earlier conversion."""
    real = out.resolve()
    for source in sources:
        place = source.resolve()
        if real == place or real in place.parents or place in real.parents:
            raise ConversionError(f"{shown(out)} and {shown(source)} are one within the other: choose a folder beside them")
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise ConversionError(f"{shown(out)} exists already: choose another folder, or add --overwrite")
    if not out.is_dir() or out.is_symlink() or (any(out.iterdir()) and not (out / REPORT).is_file()):
        raise ConversionError(f"{shown(out)} was not written by convert (it has no {REPORT}): remove it yourself")


def write_dataset(
    out: Path,
    splits: Mapping[str, Sequence[Sample]],
    names: Sequence[str],
    outputs: Outputs,
    reports: Mapping[str, str],
    link: str | None,
) -> None:
    """Write images, labels, `data.yaml` and the reports (file: text) into a new folder, then put it in the place of `out`.

    Raises:
        OSError: if it cannot be written; nothing is left behind then, and what was in `out` is as it was.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{glob.escape(out.name[:80])}.*.part"):  # of a conversion that was killed
        if (left / "old").is_dir() and not out.exists():
            os.rename(left / "old", out)
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name[:80]}.", suffix=".part", dir=out.parent))  # ours alone, on the same disk
    new, old = work / "new", work / "old"
    rules = label_rules(outputs, len(names))
    try:
        new.mkdir()
        for split, samples in splits.items():
            images, labels = new / "images" / split, new / "labels" / split
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for sample in tqdm(samples, desc=f"writing {split}", disable=None, leave=False):
                _put(sample, images / sample.name, link)
                label_file = (labels / sample.name).with_suffix(".txt")
                write_label_file(label_file, sample.record, None, 0, rules)
        description = {
            "path": str(out.resolve()),
            **{split: f"images/{split}" for split in splits},
            "names": dict(enumerate(names)),
        }
        described = describe_outputs(outputs)
        if classes := described.pop(CLASS, None):
            description["classification_names"] = dict(enumerate(classes["classes"]))
        if described:
            description["image_outputs"] = described
        (new / "data.yaml").write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
        for file, text in reports.items():
            (new / file).write_text(text, encoding="utf-8", newline="\n")
        if out.exists():
            os.rename(out, old)
        try:
            os.rename(new, out)
        except OSError:
            if old.exists():
                os.rename(old, out)
            raise
    finally:
        if out.exists() or not old.exists():  # else it holds what was in `out`
            shutil.rmtree(work, ignore_errors=True)


def _put(sample: Sample, target: Path, link: str | None) -> None:
    if sample.picture.deep:
        cv2.imencode(".png", read_deep(sample.image))[1].tofile(target)
    elif link == "symlink" and sample.picture.ended:
        target.symlink_to(sample.image.resolve())
    elif link == "hardlink" and sample.picture.ended:
        os.link(sample.image.resolve(), target)
    else:
        shutil.copyfile(sample.image, target)


def count_content(
    splits: Mapping[str, Sequence[Sample]], names: Sequence[str], outputs: Outputs, oddities: Oddities
) -> list[Row]:
    """What is in each split; classes and labels that a split lacks are noted."""
    rows, rules = [], label_rules(outputs)
    for split, samples in splits.items():
        records = [sample.record for sample in samples]
        boxes = Counter(thing.class_index for record in records for thing in record.boxes or record.polygons)
        for index, name in enumerate(names):
            if not boxes[index]:
                oddities.add(Kind.CLASS_NOT_IN_SPLIT, split, f"no boxes of {name}")
        background = sum(not record.boxes and not record.polygons for record in records)
        on_boxes = [*(f"{name} {boxes[index]}" for index, name in enumerate(names)), f"{background} images without"]
        row = [("split", f"{split}: {len(samples)} images"), ("boxes", ", ".join(on_boxes))]
        for output in outputs:
            found = [record.target(output.name, rules) or record.named.get(output.name) for record in records]
            targets, without = output.targets(found), found.count(None)
            for name in output.absent(targets) or ([output.name] if without == len(found) else []):
                where = "" if output.name in (CLASS, name) else f" ({output.name})"
                oddities.add(Kind.CLASS_NOT_IN_SPLIT, split, f"no images of {name}{where}")
            title = "image classes" if output.name == CLASS else output.name
            row.append((title, f"{output.summary(targets)}, {without} without"))
        rows.append(row)
    return rows


def content_text(rows: Sequence[Row]) -> str:
    """For the screen."""
    return "\n".join("\n    ".join([split, *(f"{title}: {said}" for title, said in cells)]) for (_, split), *cells in rows)


def report_text(rows: Sequence[Row], oddities: Oddities) -> str:
    """The whole report, in Markdown."""
    lines = ["# Conversion", "", f"| {' | '.join(title for title, _ in rows[0])} |", "|---" * len(rows[0]) + "|"]
    lines += [f"| {' | '.join(_inert(said) for _, said in row)} |" for row in rows]
    return "\n".join([*lines, "", "What was odd, and what was done with it:", "", oddities.markdown()])


def _inert(text: str) -> str:
    """Text for a Markdown cell, safe from being read as a table, a link or HTML."""
    return html.escape(re.sub(r"([\\`\[\]|])", r"\\\1", text), quote=False)
