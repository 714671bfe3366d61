"""`val`: upstream's `val.main` and `val.run`, with a joint model and loader in the place of its own, and what comes of it."""

from __future__ import annotations

import argparse
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gradnorm_plugin.data.checking import LabelScan, check_labels
from gradnorm_plugin.data.dataset import create_joint_dataloader
from gradnorm_plugin.data.description import DescriptionError, find_dataset, image_outputs
from gradnorm_plugin.evaluation import SPLITS, EvaluationError
from gradnorm_plugin.evaluation.intervals import Bootstrap
from gradnorm_plugin.evaluation.plots import explain_examples, plot_outputs
from gradnorm_plugin.evaluation.recording import SINGLE_CLASS, RecordedBatches, Recording
from gradnorm_plugin.evaluation.saved_predictions import LabelFiles, called_alike, image_id, stem, write_predictions
from gradnorm_plugin.evaluation.summary import notes, pass_settings, summarise, table, write_summary
from gradnorm_plugin.files import explain, replace_links
from gradnorm_plugin.model import DEFAULT_SIZE
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.model.checkpoint import why_unreadable
from gradnorm_plugin.outputs import CLASS, list_outputs
from gradnorm_plugin.upstream.checkout import REPOSITORY
from gradnorm_plugin.upstream.gateway import shown, swapped, upstream

_val = upstream("val")
_general = upstream("utils.general")
_torch_utils = upstream("utils.torch_utils")
_run = _val.run  # by a name of its own: while ours works, upstream's module has ours under the name

_DRAWING_SECONDS = 10


def evaluate(options: argparse.Namespace) -> None:
    """Run upstream's `val.main` on the options, with our one pass in the place of its `run`.

    Raises:
        LabelErrors, DescriptionError: if the data are not as they should be; nothing has been written then.
        EvaluationError: if the model cannot be loaded, has no image classes, or other classes than the data.
    """
    model = None
    if options.task in SPLITS:  # before the data, which may have to be made first; a benchmark loads one after the other
        device = _torch_utils.select_device(options.device)
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


def load_model(weights: list[str] | str, **options: Any) -> JointBackend:
    """The joint model in `weights`; `options` are upstream's `DetectMultiBackend`'s.

    Raises:
        EvaluationError: if it cannot be loaded, or tells nothing of the image.
    """
    files = weights if isinstance(weights, list) else [weights]
    shown = " ".join(files)
    try:
        model = JointBackend(weights, **options)
    except Exception as error:  # whatever a broken file makes the many formats' readers raise
        raise EvaluationError(f"--weights {shown} cannot be loaded: {why_unreadable(files, error)}") from error
    if not model.outputs:
        raise EvaluationError(f"--weights {shown} has no classification head: it only detects; measure it with yolov5/val.py")
    return model


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
    parts = _Parts(recording, joint_data, scan, options["single_cls"], model, precision == "bfloat16")
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


class _Parts:
    """The joint model, its image size and the joint loader in the place of upstream's, for one pass."""

    model: JointBackend
    """From `load` on."""

    def __init__(
        self,
        recording: Recording,
        joint_data: dict[str, Any],
        scan: LabelScan,
        single_cls: bool,
        loaded: JointBackend | None,
        bfloat16: bool,
    ) -> None:
        self.loaded = loaded
        self.recording, self.joint_data, self.scan, self.single_cls = recording, joint_data, scan, single_cls
        self.bfloat16 = bfloat16
        self.names: dict[int, str] = SINGLE_CLASS if single_cls else joint_data["names"]
        self.imgsz = 0
        self.batch_size = 0
        """Both as the pass has them."""

    def select_device(self, device: str, **more: Any) -> torch.device:
        """In `select_device`'s place: a model that is loaded stays where it is."""
        return self.loaded.device if self.loaded else _torch_utils.select_device(device, **more)

    def load(self, weights: list[str] | str, **options: Any) -> JointBackend:
        """In `DetectMultiBackend`'s place: the joint model, if it fits the data."""
        shown = " ".join(weights) if isinstance(weights, list) else weights
        model = self.loaded or load_model(weights, **options)
        expected = self.recording.outputs
        if model.outputs != expected:
            key = "classification_names" if [output.name for output in expected] == [CLASS] else "image_outputs"
            raise EvaluationError(
                f"--weights {shown} tells {list_outputs(model.outputs)}, but `{key}` of the data yaml has "
                f"{list_outputs(expected)}: use the data yaml that the model was trained with"
            )
        if not self.single_cls:
            names = model.names if isinstance(model.names, dict) else dict(enumerate(model.names))
            _check_box_names(shown, [str(name) for name in names.values()], [str(name) for name in self.names.values()])
        if self.bfloat16:
            try:
                model.use_bfloat16()
            except ValueError as error:
                raise EvaluationError(f"--weights {shown}: {error}") from None
        self.model = model
        model.calibrated, self.recording.temperatures = False, model.temperatures  # figures are those of training; both are told
        return model

    def choose_size(self, imgsz: int | None, s: int) -> int:
        """In `check_img_size`'s place: the side of the square that images are scaled to, whole strides `s`, and why."""
        fixed, usual = self.model.fixed_size, self.model.usual_size
        if fixed and fixed[0] != fixed[1]:
            raise EvaluationError(
                f"--weights was exported for {fixed[0]} x {fixed[1]} pixels, and `val` measures on square images: export it "
                f"for a square size"
            )
        if fixed and imgsz not in (None, fixed[0]):
            raise EvaluationError(
                f"--imgsz is {imgsz}, but the weights were exported for {fixed[0]} x {fixed[1]}: leave it out, or export them "
                f"for that size"
            )
        known = max(usual) if usual else None
        asked = imgsz or known or DEFAULT_SIZE
        self.imgsz = asked if fixed else _general.check_img_size(asked, s=s)
        made = "trained" if self.model.pt else "exported"
        why = f"the weights were {made} at {known}" if known else f"the weights do not say at which they were {made}"
        _general.LOGGER.info(f"Image size: {self.imgsz} pixels; {why}")
        return self.imgsz

    def make_loader(self, path: Any, imgsz: int, batch_size: int, *args: Any, **kwargs: Any) -> tuple[RecordedBatches, Any]:
        """In `create_dataloader`'s place: the joint loader, with batches as an exported file takes them."""
        fixed = self.model.fixed_batch
        if fixed and fixed != batch_size and not self.model.jit:
            _general.LOGGER.info(f"Batch size: {fixed}; the weights were exported for it")
            batch_size = fixed
        self.batch_size = batch_size
        loader, dataset = create_joint_dataloader(
            path,
            imgsz,
            batch_size,
            *args,
            outputs=self.recording.outputs,
            num_box_classes=len(self.joint_data["names"]),
            scan=self.scan,
            root=Path(self.joint_data["path"]) if self.joint_data.get("path") else None,
            **kwargs,
        )
        return self.recording.batches(loader), dataset


def _check_box_names(weights: str, of_model: list[str], of_data: list[str]) -> None:
    """Raises an EvaluationError where the numbers of the labels would mean other classes than those of the model."""
    if of_model == of_data:
        return
    advice = "use the data yaml that the model was trained with"
    if len(of_model) != len(of_data):
        raise EvaluationError(
            f"--weights {weights} finds {len(of_model)} classes of boxes, but `names` of the data yaml has {len(of_data)}: "
            f"{advice}"
        )
    both = f"--weights {weights} finds {', '.join(of_model)}, but `names` of the data yaml has {', '.join(of_data)}"
    if any(name in of_model and of_model.index(name) != of_data.index(name) for name in of_data):
        raise EvaluationError(
            f"{both}: a class that both know has another number, and its figures would be another class's; {advice}"
        )
    _general.LOGGER.warning(f"WARNING ⚠️ {both}: they are taken for the same classes, number by number")


def _not_drawn(failure: threading.ExceptHookArgs) -> None:
    """Upstream draws in threads of its own: there a full disk costs a picture, and needs no trace."""
    if isinstance(failure.exc_value, OSError):
        _general.LOGGER.warning(f"WARNING ⚠️ a picture could not be written: {explain(failure.exc_value)}")
    else:
        threading.__excepthook__(failure)


@contextmanager
def _whole_or_none(folder: Path) -> Iterator[None]:
    """A new folder goes again if the pass fails; one that was stopped by the user stays, unless it is empty.

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
