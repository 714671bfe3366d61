"""The folds of a cross validation: lists of the images of `train` and `val` together, a data yaml for each; no copies.

ROOT/folds/fold0.yaml          the data yaml of the comparison, with the two lists below
ROOT/folds/fold0-train.txt     paths of images, one a line
ROOT/folds/fold0-val.txt
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml

from gradnorm_plugin.compare.plan import CompareError, Plan, fold_file
from gradnorm_plugin.convert.drawing import draw_units, groups_of, units_of
from gradnorm_plugin.convert.image_files import ImageIndex
from gradnorm_plugin.convert.source import Source
from gradnorm_plugin.data.description import read_description
from gradnorm_plugin.data.listing import list_images
from gradnorm_plugin.files import write_text
from gradnorm_plugin.outputs import Classes
from gradnorm_plugin.training.joint_run import JointRun

SEED = 0
"""Seed of the draw: the same images and groups always give the same folds."""


def write_folds(root: Path, plan: Plan, run: JointRun, options: argparse.Namespace) -> None:
    """Draw the folds of a comparison that is about to start, and write their files.

    Each class of the first image output that tells one has its share in every fold, as far as whole groups allow. The images of a
    group stay together, and so do copies of one picture.

    Args:
        run: with the data checked.
        options: those of `convert.drawing.groups_of`.

    Raises:
        CompareError: if there are too few images or groups.
        ConversionError: if the groups cannot be read.
        OSError, WriteError: if an image cannot be read, or a file not be written.
    """
    told = next((output for output in run.outputs if isinstance(output, Classes)), None)
    classes: dict[Path, int] = {}
    for split in ("train", "val"):
        files = list_images(run.data[split], Path(run.data["path"]) if run.data.get("path") else None).im_files
        targets = run.scans[split].targets[told.name] if told else [0] * len(files)
        classes.update((Path(os.path.abspath(file)), int(target)) for file, target in zip(files, targets, strict=True))
    images = list(classes)
    source = Source(ImageIndex(Path(os.path.commonpath([image.parent for image in images])), images))
    groups = groups_of(options, images, source)
    units, names = units_of(images, _digests(images), groups or {}), [f"fold{fold}" for fold in plan.seeds]
    if len(units) < len(names):
        what = "groups" if groups else "different images"
        raise CompareError(f"--folds {len(names)}: the data have {len(units)} {what} in all: take {len(units)} folds at most")
    parts = draw_units(units, classes, dict.fromkeys(names, 1 / len(names)), SEED)
    if source.oddities.cases:
        print(source.oddities.table())
    contents = {key: value for key, value in read_description(run.options.data).items() if key not in ("download", "test")}
    folder = fold_file(root, 0).parent
    folder.mkdir(exist_ok=True)
    for fold, name in zip(plan.seeds, names, strict=True):
        held_out = set(parts[name])
        for split, own in (("train", False), ("val", True)):
            lines = [f"{image}\n" for image in images if (image in held_out) == own]
            write_text(folder / f"{name}-{split}.txt", "".join(lines))
        lists = {"path": str(folder), "train": f"{name}-train.txt", "val": f"{name}-val.txt"}
        write_text(fold_file(root, fold), yaml.safe_dump({**contents, **lists}, sort_keys=False, allow_unicode=True))


def _digests(images: Sequence[Path]) -> dict[Path, bytes]:
    """A digest that only identical files share; a file of unique size need not be read."""
    sizes = {image: image.stat().st_size for image in images}
    common = Counter(sizes.values())
    return {
        image: hashlib.sha256(image.read_bytes()).digest() if common[size] > 1 else b"%d" % size for image, size in sizes.items()
    }
