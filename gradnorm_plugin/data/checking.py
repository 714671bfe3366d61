"""All label files of a data set read by the strict rules of `labels`, before upstream reads (or drops) any of them.

A large data set is read once: unless `caches` has its targets from an earlier start, the processes that read the label files by
our rules also do upstream's work on the same image, and hand the result to the data set.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from gradnorm_plugin.data.caches import Bounds, Targets, cache_file, file_states, read_targets
from gradnorm_plugin.data.description import DescriptionError, image_outputs
from gradnorm_plugin.data.listing import ImageLists, Listing, check_apart, check_found, list_images, warn
from gradnorm_plugin.data.lookalikes import Labelled, lookalikes
from gradnorm_plugin.labels import LabelError, LabelErrors, LabelRules, read_label_file
from gradnorm_plugin.outputs import CLASS, Classes, Outputs, Target, label_rules
from gradnorm_plugin.upstream.gateway import bar_format, upstream

_dataloaders = upstream("utils.dataloaders")

A = TypeVar("A")
R = TypeVar("R")

CHUNK = 64
"""Files handed to a process at a time; one by one, handing over would cost as much as reading."""


class FilePool:
    """Processes that read files. The pool that upstream uses hangs if one of its processes is killed."""

    def __init__(self, processes: int) -> None:
        self._pool = ProcessPoolExecutor(processes)

    def __enter__(self) -> FilePool:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def imap(self, function: Callable[[A], R], arguments: Iterable[A]) -> Iterator[R]:
        """`function` of each of the arguments, in order. Raises DescriptionError if a process has died."""
        try:
            yield from self._pool.map(function, arguments, chunksize=CHUNK)
        except BrokenProcessPool:
            raise DescriptionError(
                "a process that reads images and labels was killed, most likely for lack of memory: free some, start again"
            ) from None


@dataclass
class LabelScan:
    """What the label files of one source say, as they were when `states` was taken."""

    label_files: list[str]
    lists: dict[Path, list[str]]
    """The images that text files name, as they were read."""
    bounds: Bounds
    states: np.ndarray
    """(files, 3) int64, see `caches.file_states`."""
    targets: Targets
    """By image output, with a row for each file, which may say that there is none."""
    results: list[Sequence[Any]] | None
    """Upstream's `verify_image_label` for each image, made in the same pass; None if the targets come from the cache."""


def check_labels(
    data: Mapping[str, Any], splits: tuple[str, ...] = ("train", "val"), trained: tuple[str, ...] = ()
) -> dict[str, LabelScan]:
    """Read every label file of `data` (as `find_dataset` returns it); what they say, for the data sets of each split.

    Args:
        trained: what the training split must have at least one of: "boxes", or the name of an image output.

    Raises:
        DescriptionError: if an image output or a split cannot be used, or no image or label file of a split can be read.
        LabelErrors: if any label file of any split breaks the rules, with all that do.
    """
    outputs = image_outputs(data)
    bounds = len(data["names"]), outputs
    listings: dict[str, Listing] = {}
    found: dict[str, LabelScan] = {}
    errors: dict[str, LabelError] = {}
    for split in splits:
        if not data.get(split):
            raise DescriptionError(f"the data yaml has no `{split}`: add the folder or list of its images")
        try:
            listings[split] = list_images(data[split], Path(data["path"]) if data.get("path") else None)
            found[split] = _scan(data[split], listings[split], bounds)
            _warn_of_lone_labels(split, data[split], listings[split])
        except LabelErrors as wrong:
            errors |= {error.file: error for error in wrong.errors}
    if errors:
        raise LabelErrors(list(errors.values()))
    for split, scan in found.items():
        check_found(split, listings[split], scan.states[:, 0] < 0, needed=bool(trained) and split == "train")
        if scan.results and not any(result[0] for result in scan.results):  # upstream would fail in the middle of its work
            first = scan.results[0][-1].removeprefix("WARNING ⚠️ ")
            raise DescriptionError(f"no image of `{split}` can be read, for instance: {first}")
    _refuse_untrainable(found.get("train"), trained)
    check_apart(listings)
    if _dataloaders.LOCAL_RANK <= 0 and any(scan.results for scan in found.values()):  # the first start with these files
        known = {
            split: {output.name: (scan.targets[output.name], output.known(scan.targets[output.name])) for output in outputs}
            for split, scan in found.items()
        }
        for warning in lookalikes({split: Labelled(listings[split].im_files, targets) for split, targets in known.items()}):
            warn(warning)
    for output in outputs:
        if isinstance(output, Classes) and output.width == 1:
            of = "`classification_names`" if output.name == CLASS else f"`{output.name}`"
            warn(f"{of} has one class: every image is right by itself, accuracy 1 means nothing")
    return found


def warn_of_absent(
    split: str, labels: Sequence[np.ndarray], targets: Targets, outputs: Outputs, names: Mapping[int, str]
) -> None:
    """Warn of classes without any example; `labels` are upstream's (boxes, 5) of each image, `names` those of the box classes."""
    of_boxes = np.unique(np.concatenate([np.zeros(0), *(rows[:, 0] for rows in labels)])).astype(int)
    kinds = [
        ("image" if output.name == CLASS else f"image with `{output.name}`", output.absent(targets[output.name]), output.rows)
        for output in outputs
    ]
    kinds.append(("box", [name for index, name in names.items() if index not in of_boxes], tuple(names.values())))
    for kind, absent, known_names in kinds:
        if absent and len(absent) < len(known_names):  # a task without any label is reported elsewhere
            shown = ", ".join(absent[:10]) + (f", ... ({len(absent)} in all)" if len(absent) > 10 else "")
            warn(f"`{split}` has no {kind} of {shown}")


def _warn_of_lone_labels(split: str, source: str | list[str], listing: Listing) -> None:
    """Warn of label files without an image, which upstream never looks for."""
    if _dataloaders.LOCAL_RANK > 0 or not all(
        Path(place).is_dir() for place in (source if isinstance(source, list) else [source])
    ):
        return  # a text file may list any part of a folder
    folders = {os.path.dirname(file) for file in listing.label_files} - {os.path.dirname(file) for file in listing.im_files}
    known = set(listing.label_files)
    lone = [
        file
        for folder in sorted(filter(os.path.isdir, folders))
        for file in sorted(f"{folder}{os.sep}{name}" for name in os.listdir(folder))
        if file.endswith(".txt") and file not in known and not file.endswith(f"{os.sep}classes.txt")  # LabelImg's list of names
    ]
    if lone:
        warn(
            f"{len(lone)} label file{'s' * (len(lone) > 1)} of `{split}` without an image: {', '.join(lone[:5])}"
            f"{', ...' if len(lone) > 5 else ''}"
        )


def _refuse_untrainable(scan: LabelScan | None, needed: tuple[str, ...]) -> None:
    """Refuse a training split without what is to be trained; upstream looks for boxes only, and late."""
    if scan is None or not needed:
        return
    results = scan.results
    readable = np.array([True] * len(scan.label_files) if results is None else [bool(result[0]) for result in results])
    num_box_classes, outputs = scan.bounds
    for output in outputs:
        if output.name not in needed or output.known(scan.targets[output.name])[readable].any():
            continue
        if output.name == CLASS:
            raise DescriptionError(
                "no image of `train` has a class: end label files with a one-hot line (docs/labels.md), or train the "
                "detection alone with YOLOv5's own train.py, or here with --balancer fixed --initial-weights 1 0"
            )
        raise DescriptionError(
            f"no image of `train` has a line `{output.name}: ...`: add it to label files (docs/labels.md), remove the output "
            f"from the data yaml, or give it the weight 0 (--balancer fixed --initial-weights)"
        )
    if results is not None:
        has_boxes = any(result[0] and len(result[1]) for result in results)
    else:  # the first file will do, as a rule
        rules = label_rules(outputs, num_box_classes)
        records = (read_label_file(file, None, 0, rules) for file in scan.label_files)
        has_boxes = any(record.boxes or record.polygons for record in records)
    if "boxes" in needed and not has_boxes:
        raise DescriptionError("no image of `train` has a box, and YOLOv5 needs one to start: add box lines to its label files")


def scan_labels(source: str | list[str], listing: ImageLists, bounds: Bounds, found: LabelScan | None) -> LabelScan:
    """What the label files of `listing` say: as `check_labels` `found` it unless a file has changed since, else read now."""
    files = listing.label_files
    if found is not None and (found.label_files, found.bounds) == (files, bounds):
        if np.array_equal(found.states, file_states(files)):
            return found
    return _scan(source, listing, bounds)


@contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection within the block: it would walk through the lists of all images again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if gc.get_freeze_count() == 0:
                # All objects count as old now; else the first collection would be due at once.
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _scan(source: str | list[str], listing: ImageLists, bounds: Bounds) -> LabelScan:
    im_files, label_files = listing.im_files, listing.label_files
    states = file_states(label_files)  # before the files are read: a change in between shows at the next start
    targets = read_targets(cache_file(source, label_files), label_files, states, bounds)
    if targets is not None:
        return LabelScan(label_files, listing.lists, bounds, states, targets, None)
    num_box_classes, outputs = bounds
    rules = label_rules(outputs, num_box_classes)
    with FilePool(_dataloaders.NUM_THREADS) as pool, collector_paused():
        examined = pool.imap(partial(_examine, rules=rules), zip(im_files, label_files, strict=True))
        found = list(
            tqdm(
                examined,
                desc=f"Checking {Path(label_files[0]).parent}...",
                total=len(label_files),
                bar_format=bar_format(),
                disable=_dataloaders.LOCAL_RANK > 0,
            )
        )
    errors = {said.file: said for said, _ in found if isinstance(said, LabelError)}
    if errors:
        raise LabelErrors(list(errors.values()))
    rows = zip(*(said for said, _ in found), strict=True)
    targets = {output.name: output.targets(of_files) for output, of_files in zip(outputs, rows, strict=True)}
    return LabelScan(label_files, listing.lists, bounds, states, targets, [result for _, result in found])


def _examine(files: tuple[str, str], rules: LabelRules) -> tuple[tuple[Target | None, ...] | LabelError, Sequence[Any] | None]:
    """An image's target for each output and upstream's result for it; the error and None if its label file is wrong."""
    im_file, label_file = files
    if os.path.exists(im_file) and not os.path.isfile(im_file):  # to open a pipe would wait for ever
        message = f"WARNING ⚠️ {im_file}: ignoring corrupt image/label: no file"
        return (None,) * len(rules.outputs), [None, None, None, None, 0, 0, 0, 1, message]
    try:
        record = read_label_file(label_file, None, 0, rules)
    except LabelError as error:
        return error, None
    said = tuple(record.target(output.name, rules) for output in rules.outputs)
    return said, _dataloaders.verify_image_label((im_file, label_file, ""))
