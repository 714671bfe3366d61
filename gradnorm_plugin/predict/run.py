"""The command `predict`: a source's frames, one by one, through the predictor to the writers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gradnorm_plugin.files import explain, whole_file
from gradnorm_plugin.labels import LabelError
from gradnorm_plugin.predict.drawing import Style
from gradnorm_plugin.predict.errors import PredictError
from gradnorm_plugin.predict.naming import OutputNames
from gradnorm_plugin.predict.options import parse_options
from gradnorm_plugin.predict.pictures import Crops, Pictures, Window
from gradnorm_plugin.predict.predictor import Predictor
from gradnorm_plugin.predict.progress import Progress, unreadable
from gradnorm_plugin.predict.records import CsvFiles, JsonFile, LabelFiles
from gradnorm_plugin.predict.sources import Frame, Source, open_source
from gradnorm_plugin.predict.writer import Result, Stopped, Writer
from gradnorm_plugin.terminal import fail
from gradnorm_plugin.upstream.gateway import upstream

_general = upstream("utils.general")


def main(argv: Sequence[str] | None = None) -> None:
    """Predict with the flags of `argv` (default: the command line's). Ends with status 1 and one message on bad input."""
    options = parse_options(argv)
    try:
        predict(options)
    except (PredictError, LabelError) as error:
        fail(str(error))
    except OSError as error:
        fail(explain(error))


def predict(options: argparse.Namespace) -> Path | None:
    """Go through the source and write what the options ask for.

    Returns:
        The folder of the outputs, None if none are written.

    Raises:
        PredictError: if weights, source or a setting cannot be used, or no image of the source can be read.
        OSError: if an output cannot be written.
    """
    predictor = Predictor(
        options.weights,
        imgsz=options.imgsz,
        conf_thres=options.conf_thres,
        iou_thres=options.iou_thres,
        max_det=options.max_det,
        device=options.device,
        classes=options.classes,
        agnostic_nms=options.agnostic_nms,
        augment=options.augment,
        half=options.half,
        dnn=options.dnn,
        data=options.data,
    )
    if not predictor.classification_names:
        _general.LOGGER.info(f"{' '.join(options.weights)}: no classification_names in these weights, boxes only")
    if options.visualize and not predictor.backend.pt:
        raise PredictError("--visualize needs .pt weights: an exported file does not show its feature maps")
    source = open_source(options.source, options.vid_stride)
    folder = _general.increment_path(Path(options.project) / options.name, exist_ok=options.exist_ok)
    writers = make_writers(options, predictor, source, folder)
    names = OutputNames()
    progress = Progress(source)
    try:
        _go_through(source, predictor, writers, names, progress, folder if options.visualize else None, _style(options))
        progress.close()
        if not progress.images:
            raise PredictError(f"--source {options.source}: nothing to predict; {unreadable(source)}")
        for writer in writers:
            writer.finish()
    except BaseException:
        progress.close()
        for writer in writers:
            writer.discard()
        raise
    progress.summary()
    _report(predictor, progress, names, writers)
    if options.update:
        _strip(options.weights)
    if not any(not isinstance(writer, Window) for writer in writers) and not options.visualize:
        return None
    _general.LOGGER.info(f"Results saved to {_general.colorstr('bold', folder)}")
    return folder


def make_writers(options: argparse.Namespace, predictor: Predictor, source: Source, folder: Path) -> list[Writer]:
    """The outputs that the options ask for, in `folder`, which is made when the first is written."""
    writers: list[Writer] = []
    if options.view_img:  # first: it fails where there is no display, and may stop
        writers.append(Window())
    if not options.nosave:
        writers.append(Pictures(folder, side_by_side=source.live))
    if options.save_txt:
        writers.append(LabelFiles(folder, len(predictor.names), len(predictor.classification_names)))
    if options.save_json:
        writers.append(JsonFile(folder))
    if options.save_csv:
        writers.append(CsvFiles(folder, list(predictor.classification_names.values())))
    if options.save_crop:
        writers.append(Crops(folder))
    return writers


def _go_through(
    source: Source,
    predictor: Predictor,
    writers: list[Writer],
    names: OutputNames,
    progress: Progress,
    visualize: Path | None,
    style: Style,
) -> None:
    try:
        for frames in source:
            maps = None if visualize is None else _folder_of_maps(visualize, names, frames[0])
            before = predictor.profiles[1].t
            predictions = predictor([frame.image for frame in frames], maps)
            milliseconds = (predictor.profiles[1].t - before) / len(frames) * 1000
            for frame, prediction in zip(frames, predictions, strict=True):
                found = replace(prediction, path=frame.path, frame=frame.number)
                result = Result(frame, found, names.stem(frame), names.frame(frame), style)
                for writer in writers:
                    writer.write(result)
                progress.add(found, milliseconds)
    except (Stopped, KeyboardInterrupt):  # the way to end a camera: what there is so far is kept
        _general.LOGGER.info("stopped; what was predicted so far is saved")


def _folder_of_maps(folder: Path, names: OutputNames, frame: Frame) -> Path:
    maps = folder / "features" / names.frame(frame)
    maps.mkdir(parents=True, exist_ok=True)
    return maps


def _style(options: argparse.Namespace) -> Style:
    return Style(line_width=options.line_thickness, labels=not options.hide_labels, confidences=not options.hide_conf)


def _report(predictor: Predictor, progress: Progress, names: OutputNames, writers: list[Writer]) -> None:
    """Say what the user might not expect of the outputs, and how long it took."""
    left_out = sum(writer.left_out for writer in writers if isinstance(writer, LabelFiles))
    if left_out:
        _general.LOGGER.warning(f"{left_out} boxes without area are not in the label files, which do not allow them")
    if names.renamed:
        _general.LOGGER.info(
            f"outputs called NAME-2, NAME-3, ...: {names.renamed}, of files that have the name of another one "
            f"(--save-json and --save-csv say which is which)"
        )
    scaled, network, suppression = (profile.t / progress.images * 1000 for profile in predictor.profiles)
    height, width = predictor.imgsz
    _general.LOGGER.info(
        f"{scaled:.1f}ms scaling, {network:.1f}ms network, {suppression:.1f}ms NMS an image at up to {height} x {width} pixels"
    )


def _strip(weights: Sequence[str]) -> None:
    """Upstream's `--update`: rewrite the checkpoints without what only training needs."""
    for name in weights:
        with whole_file(Path(name)) as partial:
            _general.strip_optimizer(name, str(partial))
