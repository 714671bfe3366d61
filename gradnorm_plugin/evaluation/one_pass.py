"""Upstream's `val.run` on a file of weights, with a joint model and loader in the place of its own, and what comes of it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from gradnorm_plugin.data.dataset import create_joint_dataloader
from gradnorm_plugin.data.description import classification_names
from gradnorm_plugin.evaluation.bootstrap import Bootstrap
from gradnorm_plugin.evaluation.files import LabelFiles, write_predictions
from gradnorm_plugin.evaluation.options import EvaluationError
from gradnorm_plugin.evaluation.plots import plot_classification
from gradnorm_plugin.evaluation.recording import SINGLE_CLASS, RecordedBatches, Recording
from gradnorm_plugin.evaluation.summary import notes, summarise, table, write_summary
from gradnorm_plugin.files import explain, replace_links
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.upstream.gateway import swapped, upstream

_val = upstream("val")
_general = upstream("utils.general")
_run = _val.run  # by a name of its own: while ours works, upstream's module has ours under the name

_DRAWING_SECONDS = 10


def run_one_pass(
    *,
    joint_data: dict[str, Any],
    bootstrap: Bootstrap | None,
    weights: list[str] | str,
    project: str | Path,
    name: str,
    exist_ok: bool,
    task: str,
    plots: bool = True,
    **options: Any,
) -> tuple[Any, Any, Any]:
    """Upstream's `val.run(weights=..., ...)`, then the classification's table, pictures and files.

    Without `plots`, as upstream's speed and study have it, there are neither pictures nor intervals.

    Args:
        joint_data: the data yaml's content as upstream's `check_dataset` returns it.
        bootstrap: how to draw the images again for the intervals; None leaves them out.

    Returns:
        What upstream returns, to the last digit.

    Raises:
        EvaluationError: if the model cannot be loaded, has no image classes, or other classes than the data.
    """
    folder = _general.increment_path(Path(project) / name, exist_ok=exist_ok)
    replace_links(folder)  # upstream writes its files by name
    recording, labels = Recording(classification_names(joint_data)), LabelFiles()
    names = SINGLE_CLASS if options["single_cls"] else joint_data["names"]
    ours = swapped(
        _val,
        check_dataset=lambda _: joint_data,
        DetectMultiBackend=partial(_load, recording, None if options["single_cls"] else len(names)),
        create_dataloader=partial(_make_loader, recording, len(joint_data["names"])),
        save_one_txt=labels.save_boxes,
    )
    with swapped(threading, excepthook=_not_drawn), _whole_or_none(folder):
        with recording.in_place(), ours:
            results = _run(
                weights=weights, project=folder.parent, name=folder.name, exist_ok=True, task=task, plots=plots, **options
            )
        figures = summarise(recording, names, weights, task, bootstrap if plots else None)
        by_class = options["verbose"] or len(recording.classification_names) < 50  # as upstream for its table
        for line in (*table(figures, by_class), *notes(figures)):
            _general.LOGGER.info(line)
        write_summary(figures, folder)
    if plots:
        plot_classification(recording.classification(), list(recording.classification_names.values()), folder)
    if options["save_json"]:
        _general.LOGGER.info(f"Image classes saved to {write_predictions(recording, folder)}")
    if options["save_txt"]:
        left_out = labels.finish(folder / "labels", recording, options["save_conf"], options["save_hybrid"])
        note = f"; {left_out} boxes without area left out" if left_out else ""
        _general.LOGGER.info(f"Joint labels of {recording.images} images saved to {folder / 'labels'}{note}")
    return results


def _load(recording: Recording, num_box_classes: int | None, weights: list[str] | str, **options: Any) -> JointBackend:
    """The joint model in `DetectMultiBackend`'s place, if it fits the data."""
    shown = " ".join(weights) if isinstance(weights, list) else weights
    try:
        model = JointBackend(weights, **options)
    except Exception as error:  # whatever a broken file makes the many formats' readers raise
        raise EvaluationError(f"--weights {shown} cannot be loaded: {type(error).__name__}: {error}") from error
    if not model.classification_names:
        raise EvaluationError(f"--weights {shown} has no classification head: it only detects; measure it with yolov5/val.py")
    if model.classification_names != recording.classification_names:
        raise EvaluationError(
            f"--weights {shown} tells {_listed(model.classification_names)}, but `classification_names` of the data yaml has "
            f"{_listed(recording.classification_names)}: use the data yaml that the model was trained with"
        )
    if num_box_classes not in (None, len(model.names)):
        raise EvaluationError(
            f"--weights {shown} finds {len(model.names)} classes of boxes, but `names` of the data yaml has {num_box_classes}: "
            f"use the data yaml that the model was trained with"
        )
    recording.latest_probabilities = lambda: model.probabilities
    return model


def _make_loader(recording: Recording, num_box_classes: int, *args: Any, **kwargs: Any) -> tuple[RecordedBatches, Any]:
    """The joint loader in `create_dataloader`'s place."""
    names = recording.classification_names
    loader, dataset = create_joint_dataloader(*args, classification_names=names, num_box_classes=num_box_classes, **kwargs)
    return recording.batches(loader), dataset


def _listed(names: Mapping[int, str]) -> str:
    return ", ".join(names.values())


def _not_drawn(failure: threading.ExceptHookArgs) -> None:
    """Upstream draws in threads of its own: there a full disk costs a picture, and needs no trace."""
    if isinstance(failure.exc_value, OSError):
        _general.LOGGER.warning(f"WARNING ⚠️ a picture could not be written: {explain(failure.exc_value)}")
    else:
        threading.__excepthook__(failure)


@contextmanager
def _whole_or_none(folder: Path) -> Iterator[None]:
    """A new folder goes again if the pass fails; one that was stopped by the user stays, unless it is empty.

    Upstream makes it before it looks at the model, and writes its pictures as far as there is space.
    """
    new, threads = not folder.exists(), set(threading.enumerate())
    try:
        yield
    except BaseException as error:
        if new and isinstance(error, Exception):
            for thread in set(threading.enumerate()) - threads:  # upstream's, which draw
                thread.join(timeout=_DRAWING_SECONDS)
            shutil.rmtree(folder, ignore_errors=True)
        for empty in (folder / "labels", folder):
            with suppress(OSError):
                empty.rmdir()
        raise
