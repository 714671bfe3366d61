"""`val`: upstream's `val.main` and `val.run`, on a joint model and loader, and what is written afterwards."""

from __future__ import annotations

import argparse
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from gradnorm_plugin.data.checking import LabelScan, check_labels
from gradnorm_plugin.data.description import DescriptionError, find_dataset, image_outputs
from gradnorm_plugin.evaluation import SPLITS, EvaluationError
from gradnorm_plugin.evaluation.intervals import Bootstrap
from gradnorm_plugin.evaluation.joint_parts import JointParts, load_model
from gradnorm_plugin.evaluation.plots import explain_examples, plot_outputs
from gradnorm_plugin.evaluation.recording import Recording
from gradnorm_plugin.evaluation.saved_predictions import LabelFiles, called_alike, image_id, stem, write_predictions
from gradnorm_plugin.evaluation.summary import notes, pass_settings, summarise, table, write_summary
from gradnorm_plugin.files import explain, replace_links
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.upstream.checkout import REPOSITORY
from gradnorm_plugin.upstream.gateway import shown, swapped, upstream

_val = upstream("val")
_general = upstream("utils.general")
_run = _val.run  # kept here: during our pass, upstream's module has ours under this name

_DRAWING_SECONDS = 10


def evaluate(options: argparse.Namespace) -> None:
    """Run upstream's `val.main` on the options, with our one pass in the place of its `run`.

    Raises:
        LabelErrors, DescriptionError: if the data are not as they should be; nothing has been written then.
        EvaluationError: if the model cannot be loaded, has no image classes, or other classes than the data.
    """
    model = None
    if options.task in SPLITS:  # before the data, which may have to be made first; a benchmark loads one after the other
        device = upstream("utils.torch_utils").select_device(options.device)
        model = load_model(options.weights, device=device, fp16=options.half and device.type != "cpu")
    options.data = options.data or _data_of(model or load_model(options.weights[:1]))
    options.save_json |= options.data.endswith("coco.yaml")  # as upstream does
    settings = dict(vars(options))
    _general.print_args(settings, show_file=False)
    bootstrap = Bootstrap(settings.pop("bootstrap"), settings.pop("seed"))
    split = options.task if options.task in SPLITS else "val"
    data, scan = _check_data(options.data, split, settings.pop("allow_download"))
    if options.save_txt and (pair := called_alike(scan.label_files, stem)):
        raise EvaluationError(f"--save-txt: {pair[0]} and {pair[1]} would be one file in the folder of results; rename one image")
    if options.save_json and (pair := called_alike(scan.label_files, image_id)):
        raise EvaluationError(f"--save-json: {pair[0]} and {pair[1]} would be one image_id; rename one image")
    one_pass = partial(
        run_one_pass,
        model=model,
        joint_data=data,
        scan=scan,
        bootstrap=bootstrap if bootstrap.resamples else None,
        precision=settings.pop("precision"),
    )
    with swapped(_val, run=one_pass):
        _val.main(argparse.Namespace(**settings))


def _data_of(model: JointBackend) -> str:
    """The data yaml that the weights were trained on, where they name one, else that of the demo set."""
    trained_on = model.trained_on
    if trained_on is None:
        return shown(REPOSITORY / "data" / "joint.yaml")
    if not Path(trained_on).is_file():
        raise EvaluationError(f"--data is missing: the weights were trained on {trained_on}, which is not here; name a data yaml")
    return trained_on


def _check_data(file: str, split: str, allow_download: bool) -> tuple[dict[str, Any], LabelScan]:
    data = find_dataset(file, allow_download)
    try:
        return data, check_labels(data, (split,))[split]
    except DescriptionError as error:
        raise DescriptionError(f"{file}: {error}") from None


def run_one_pass(
    *,
    model: JointBackend | None,
    joint_data: dict[str, Any],
    scan: LabelScan,
    bootstrap: Bootstrap | None,
    precision: str,
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
        model: that of the weights, if it is loaded already.
        joint_data: the data yaml's content as `find_dataset` returns it.
        scan: what `check_labels` found in the split.
        bootstrap: how to draw the images again for the intervals; None leaves them out.
        precision: "float32" or "bfloat16", what the network computes in.

    Returns:
        What upstream returns, to the last digit.

    Raises:
        EvaluationError: if the model cannot be loaded, has no image classes, or other classes than the data.
    """
    folder = _general.increment_path(Path(project) / name, exist_ok=exist_ok)
    replace_links(folder)  # upstream writes its files by name
    recording, labels = Recording(image_outputs(joint_data)), LabelFiles()
    parts = JointParts(recording, joint_data, scan, options["single_cls"], model, precision == "bfloat16")
    ours = swapped(
        _val,
        check_dataset=lambda _: joint_data,
        select_device=parts.select_device,
        DetectMultiBackend=parts.load,
        check_img_size=parts.choose_size,
        create_dataloader=parts.make_loader,
        save_one_txt=labels.save_boxes,
    )
    with swapped(threading, excepthook=_not_drawn), _whole_or_none(folder):
        with recording.in_place(), ours:
            results = _run(
                weights=weights, project=folder.parent, name=folder.name, exist_ok=True, task=task, plots=plots, **options
            )
        options["precision"] = precision
        settings = pass_settings(**{**options, "imgsz": parts.imgsz, "batch_size": parts.batch_size, "half": parts.model.fp16})
        untrained = parts.model.untrained
        figures = summarise(recording, parts.names, weights, task, settings, bootstrap if plots else None, untrained)
        by_class = options["verbose"] or max(output.width for output in recording.outputs) < 50  # as upstream for its table
        for line in (*table(figures, by_class), *notes(figures)):
            _general.LOGGER.info(line)
        write_summary(figures, folder)
    if plots:
        trained = [output for output in recording.outputs if output.task not in untrained]
        plot_outputs(recording, folder, trained)
        if parts.model.joint is not None:
            parts.model.calibrated = True  # as everywhere but in the figures
            explain_examples(recording, folder, trained, parts.model, parts.imgsz, options["device"])
    if options["save_json"]:
        _general.LOGGER.info(f"Image classes saved to {write_predictions(recording, folder)}")
    if options["save_txt"]:
        left_out = labels.finish(folder / "labels", recording, options["save_conf"], options["save_hybrid"])
        note = f"; {left_out} boxes without area left out" if left_out else ""
        _general.LOGGER.info(f"Joint labels of {recording.images} images saved to {folder / 'labels'}{note}")
    return results


def _not_drawn(failure: threading.ExceptHookArgs) -> None:
    """Upstream draws in threads of its own, where a full disk costs a picture and needs no traceback."""
    if isinstance(failure.exc_value, OSError):
        _general.LOGGER.warning(f"WARNING ⚠️ a picture could not be written: {explain(failure.exc_value)}")
    else:
        threading.__excepthook__(failure)


@contextmanager
def _whole_or_none(folder: Path) -> Iterator[None]:
    """Remove a new folder if the pass fails; if the user stopped it, only if it is empty.

    Upstream makes it, and those above, before it looks at the model, and writes its pictures as far as there is space.
    """
    made = [part for part in (folder / "labels", folder, *folder.parents) if not part.exists()]
    threads = set(threading.enumerate())
    try:
        yield
    except BaseException as error:
        if folder in made and isinstance(error, Exception):
            for thread in set(threading.enumerate()) - threads:  # upstream's, which draw
                thread.join(timeout=_DRAWING_SECONDS)
            shutil.rmtree(folder, ignore_errors=True)
        for empty in made:
            with suppress(OSError):
                empty.rmdir()
        raise
