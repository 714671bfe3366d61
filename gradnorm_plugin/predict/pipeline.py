"""A source's frames, one by one, through the predictor to the outputs, and what the screen shows on the way."""

from __future__ import annotations

import argparse
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from gradnorm_plugin.files import whole_file
from gradnorm_plugin.outputs import CLASS, ImageOutput, Outputs, label_rules
from gradnorm_plugin.predict import PredictError
from gradnorm_plugin.predict.drawing import Style
from gradnorm_plugin.predict.prediction import Clip, Prediction
from gradnorm_plugin.predict.predictor import Predictor
from gradnorm_plugin.predict.result_files import (
    Clips,
    Crops,
    CsvFiles,
    ExplainedPictures,
    JsonFile,
    LabelFiles,
    Output,
    OutputNames,
    Pictures,
    Result,
)
from gradnorm_plugin.predict.sources import Source, open_source
from gradnorm_plugin.upstream.gateway import bar_format, upstream

_general = upstream("utils.general")

FEW = 10
"""Up to so many images have a line each."""
LISTED = 20
"""Of the files that cannot be read so many are named."""
_TRY_WINDOW = "import cv2, numpy; cv2.imshow('test', numpy.zeros((1, 1, 3), numpy.uint8)); cv2.waitKey(1)"


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
        abstain=options.abstain,
        bfloat16=options.precision == "bfloat16",
    )
    if not predictor.outputs:
        _general.LOGGER.info(f"{' '.join(options.weights)}: no classification_names in these weights, boxes only")
    if options.visualize and not predictor.backend.pt:
        raise PredictError("--visualize needs .pt weights: an exported file does not show its feature maps")
    if options.explain:
        predictor.check_explain()
    source = open_source(options.source, options.vid_stride)
    if options.clip_class:
        _check_clips(predictor, source)
    folder = _general.increment_path(Path(options.project) / options.name, exist_ok=options.exist_ok)
    outputs = _outputs(options, predictor, source, folder)
    names, progress = OutputNames(), Progress(source, predictor.outputs)
    style = Style(line_width=options.line_thickness, labels=not options.hide_labels, confidences=not options.hide_conf)
    try:
        try:
            frames = _results(source, predictor, names, style, folder if options.visualize else None, options.clip_class)
            for result, milliseconds in frames:
                for output in outputs:
                    output.write(result)
                progress.add(result.prediction, milliseconds)
        except (Stopped, KeyboardInterrupt):  # the way to end a camera: what there is so far is kept
            _general.LOGGER.info("stopped; what was predicted so far is saved")
        progress.close()
        if not progress.images:
            raise PredictError(f"--source {options.source}: nothing to predict; {_unreadable(source)}")
        for output in outputs:
            output.finish()
    except BaseException:
        progress.close()
        for output in outputs:
            output.discard()
        raise
    progress.summary()
    if options.clip_class and not progress.clips:
        _general.LOGGER.warning("--clip-class: there was no video")
    _report(predictor, progress, names, outputs)
    if options.update:  # upstream's: rewrite the checkpoints without what only training needs
        for name in options.weights:
            with whole_file(Path(name)) as partial:
                _general.strip_optimizer(name, str(partial))
    if all(isinstance(output, Window) for output in outputs) and not options.visualize:
        return None
    _general.LOGGER.info(f"Results saved to {_general.colorstr('bold', folder)}")
    return folder


def _outputs(options: argparse.Namespace, predictor: Predictor, source: Source, folder: Path) -> list[Output]:
    """The outputs that the options ask for, in `folder`, which is made when the first is written."""
    outputs: list[Output] = []
    if options.view_img:  # first: it fails where there is no display, and may stop
        outputs.append(Window())
    if not options.nosave:
        outputs.append(Pictures(folder, side_by_side=source.live))
    if options.save_txt:
        outputs.append(LabelFiles(folder, label_rules(predictor.outputs, len(predictor.names))))
    if options.save_json:
        outputs.append(JsonFile(folder))
    if options.save_csv:
        outputs.append(CsvFiles(folder, predictor.outputs))
    if options.clip_class and (options.save_json or options.save_csv):
        outputs.append(Clips(folder, predictor.outputs, options.save_json, options.save_csv))
    if options.explain:
        outputs.append(ExplainedPictures(folder / "explained", side_by_side=source.live))
    if options.save_crop:
        outputs.append(Crops(folder, predictor.names.values()))
    return outputs


def _results(
    source: Source, predictor: Predictor, names: OutputNames, style: Style, visualize: Path | None, clip_class: bool
) -> Iterator[tuple[Result, float]]:
    """The prediction of each frame, with that of its video so far if `clip_class`, and the milliseconds that the network took
    for it; feature maps go below `visualize`."""
    clip = Clip(predictor.abstain)
    for frames in source:
        maps = None
        if visualize is not None:
            maps = visualize / "features" / names.frame(frames[0])
            maps.mkdir(parents=True, exist_ok=True)
        before = predictor.profiles[1].t
        predictions = predictor([frame.image for frame in frames], maps)
        milliseconds = (predictor.profiles[1].t - before) / len(frames) * 1000
        for frame, prediction in zip(frames, predictions, strict=True):
            found = replace(prediction, path=frame.path, frame=frame.number)
            if clip_class and frame.number is not None:
                clip = (Clip(predictor.abstain) if frame.number == 1 else clip).after(found)
                found = replace(found, clip=clip)
            yield Result(frame, found, names.stem(frame), names.frame(frame), style), milliseconds


def _check_clips(predictor: Predictor, source: Source) -> None:
    if not predictor.outputs:
        raise PredictError("--clip-class: these weights say nothing of the whole image: leave it out")
    if source.live:
        raise PredictError("--clip-class is for videos, and a camera or stream has no end: leave it out")


class Stopped(Exception):
    """The user has seen enough: what there is so far is kept."""


class Window(Output):
    """A window for each source; the key q stops."""

    def __init__(self) -> None:
        # In another process: without a display OpenCV does not raise, it ends the process.
        tried = subprocess.run([sys.executable, "-c", _TRY_WINDOW], capture_output=True, check=False, timeout=60)
        if tried.returncode:
            raise PredictError("--view-img: no window can be opened here (no display, or OpenCV without windows): leave it out")
        self._titles: set[str] = set()

    def write(self, result: Result) -> None:
        """Show the drawn image."""
        title = result.frame.path.encode("unicode_escape").decode()
        if title not in self._titles:
            self._titles.add(title)
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            cv2.resizeWindow(title, result.drawn.shape[1], result.drawn.shape[0])
        cv2.imshow(title, result.drawn)
        if cv2.waitKey(1) & 0xFF == ord("q"):
            raise Stopped

    def finish(self) -> None:
        """Close the windows."""
        if self._titles:
            cv2.destroyAllWindows()

    discard = finish


class Progress:
    """Counts what is found and shows it: a line an image for a few, a bar for many, and a summary at the end."""

    def __init__(self, source: Source, outputs: Outputs = ()) -> None:
        self.source = source
        self.images = 0
        self.objects: Counter[str] = Counter()
        self.said = {output: array("f") for output in outputs}
        """What each image output said of all images, one after the other: a camera may run for days."""
        self.unsure: Counter[ImageOutput] = Counter()
        """In how many images it was left open."""
        self.clips: dict[str | None, Clip] = {}
        """What each video came to."""
        few = source.total is not None and source.total <= FEW
        pause = 0.1 if sys.stderr.isatty() else 10  # seconds: in a log each state of the bar stays
        bar = {"desc": "predict", "bar_format": bar_format(), "mininterval": pause}
        self._bar = None if few else tqdm(total=source.total, **bar)

    def add(self, prediction: Prediction, milliseconds: float) -> None:
        """Count one image and show it; `milliseconds` is the time the network took for it."""
        self.images += 1
        objects = Counter(box.name for box in prediction.boxes)
        self.objects += objects
        for answer in prediction.answers:
            self.said[answer.output].extend(answer.target or ())
            self.unsure[answer.output] += answer.unsure
        if prediction.clip is not None:
            self.clips[prediction.path] = prediction.clip
        done = self.images + len(self.source.unreadable)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            return
        parts = [_counted(objects) or "no boxes", *("".join(answer.say()) for answer in prediction.answers)]
        frame = "" if prediction.frame is None else f" ({prediction.frame})"
        _general.LOGGER.info(f"{done}/{self.source.total} {prediction.path}{frame}: {'; '.join(parts)}; {milliseconds:.1f}ms")

    def close(self) -> None:
        """Take the bar down."""
        if self._bar is not None:
            self._bar.update(self.images + len(self.source.unreadable) - self._bar.n)
            self._bar.close()

    def summary(self) -> None:
        """Say what was found in all images, and what could not be read."""
        lines = [f"{self.images} image{'s' * (self.images != 1)}; boxes: {_counted(self.objects) or 'none'}"]
        for output, said in self.said.items():
            known, open_ = self.images - self.unsure[output], self.unsure[output]
            targets = output.targets([tuple(row) for row in np.reshape(said, (known, -1)).tolist()] if known else [])
            title = "classes of the images" if output.name == CLASS else output.name
            lines.append(f"{title}: {output.summary(targets)}{f', unsure {open_}' if open_ else ''}")
        for path, clip in self.clips.items():
            lines.append(f"{path}, {clip.frames} frames: {'; '.join(''.join(answer.say()) for answer in clip.answers)}")
        _general.LOGGER.info("\n".join(lines))
        if self.source.unreadable:
            _general.LOGGER.warning(_unreadable(self.source))


def _unreadable(source: Source) -> str:
    """One text that lists what could not be read."""
    count = len(source.unreadable)
    lines = [f"{count} file{'s' * (count != 1)} cannot be read:", *(f"  {line}" for line in source.unreadable[:LISTED])]
    if count > LISTED:
        lines.append(f"  ... and {count - LISTED} more")
    return "\n".join(lines)


def _counted(names: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in names.items())


def _report(predictor: Predictor, progress: Progress, names: OutputNames, outputs: list[Output]) -> None:
    """Say what the user might not expect of the outputs, and how long it took."""
    left_out = sum(output.left_out for output in outputs if isinstance(output, LabelFiles))
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
