"""`Predictor`: weights of any format that upstream runs, images in, predictions out."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeAlias, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradnorm_plugin.model import DEFAULT_SIZE
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.model.checkpoint import why_unreadable
from gradnorm_plugin.outputs import Classes, Outputs, split, the_classes
from gradnorm_plugin.predict import PredictError
from gradnorm_plugin.predict.images import as_picture, is_several
from gradnorm_plugin.predict.prediction import Answer, DetectedBox, ImageClass, Prediction
from gradnorm_plugin.upstream.gateway import upstream

_general = upstream("utils.general")
_letterbox = upstream("utils.augmentations").letterbox

AnImage: TypeAlias = str | os.PathLike[str] | np.ndarray | Image.Image | bytes | BinaryIO


class Predictor:
    """Finds boxes and what to say of the image: `predictor(image)` gives a `Prediction`, a list of images a list of them.

    An image is one of these; anything else is a `PredictError` that says what was found:

    * the path of an image file;
    * an array of uint8, BGR as `cv2.imread` gives it: (H, W, 3); (H, W, 4), whose alpha is dropped; (H, W) or (H, W, 1), grey.
      Of uint16 the lowest value becomes 0 and the highest 255, as in files of 16 bits;
    * a PIL image of any mode but I and F, turned upright as its EXIF orientation says; alpha is dropped;
    * the content of an image file: bytes, or a file opened in binary mode.

    Threads may share a predictor: they take turns at the network, and `profiles` then counts their time together, roughly.
    An event loop calls it in a thread, `await asyncio.to_thread(predictor, image)`. Where processes are forked, make it in each
    of them.
    """

    def __init__(
        self,
        weights: str | Path | Sequence[str | Path],
        imgsz: int | Sequence[int] | None = None,
        conf_thres: float = 0.25,
        iou_thres: float = 0.45,
        max_det: int = 1000,
        device: str = "",
        classes: Sequence[int] | None = None,
        agnostic_nms: bool = False,
        augment: bool = False,
        half: bool = False,
        dnn: bool = False,
        data: str | Path | None = None,
        batch_size: int = 8,
        abstain: float = 0.0,
    ) -> None:
        """Load the weights.

        Args:
            weights: .pt (several make an ensemble), TorchScript, ONNX, OpenVINO, or what else upstream's `detect.py` takes.
            imgsz: pixels, one number or height and width; default the size that the weights were trained or exported with.
            conf_thres: boxes below this confidence are left out.
            iou_thres: of two boxes of a class that overlap more than this, the surer one stays.
            max_det: boxes an image at most.
            device: "cpu", "0", "cuda:0", ...; "" or "auto" takes a GPU if there is one.
            classes: only boxes of these classes.
            agnostic_nms: boxes of different classes may suppress each other.
            augment: look at each image several times, scaled and flipped (.pt only).
            half: compute in half precision.
            dnn: run ONNX with OpenCV instead of ONNX Runtime.
            data: a data yaml that names the boxes' classes, for weights that do not.
            batch_size: images of one size that run together; a file exported for a fixed number runs with that.
            abstain: a class of the image whose probability is below this is left open.

        Raises:
            PredictError: if the weights or a setting cannot be used.
        """
        self.backend = load_backend(weights, device, half, dnn, data)
        if augment and not self.backend.pt:
            raise PredictError("augmented inference needs .pt weights: an exported file sees an image once")
        for name, value in (("conf_thres", conf_thres), ("iou_thres", iou_thres), ("abstain", abstain)):
            if not 0 <= value <= 1:
                raise PredictError(f"{name} is {value}: expected 0 to 1")
        for name, value in (("max_det", max_det), ("batch_size", batch_size)):
            if value < 1:
                raise PredictError(f"{name} is {value}: expected at least 1")
        self.nms = {
            "conf_thres": conf_thres,
            "iou_thres": iou_thres,
            "classes": self._known(classes),
            "agnostic": agnostic_nms,
            "max_det": max_det,
            "time_limit": math.inf,  # upstream's would drop boxes where the machine is slow
        }
        if abstain and not any(isinstance(output, Classes) for output in self.backend.outputs):
            raise PredictError("abstain leaves open what class an image is of, and these weights tell none: leave it out")
        self.augment, self.abstain = augment, abstain
        self.batch_size = self.backend.fixed_batch or batch_size
        self.imgsz = self._size(imgsz or self.backend.usual_size or DEFAULT_SIZE, self.backend.fixed_size)
        self.profiles = [_general.Profile(), _general.Profile(), _general.Profile()]
        self.backend.warmup((self.batch_size, 3, *self.imgsz))

    @property
    def names(self) -> dict[int, str]:
        """Names of the boxes' classes."""
        return dict(self.backend.names)

    @property
    def classification_names(self) -> dict[int, str]:
        """Names of the image's classes, made distinct: each has its probability; empty for weights that only detect."""
        names = self.backend.classification_names
        often = Counter(names.values())
        return {index: name if often[name] == 1 else f"{name} ({index})" for index, name in names.items()}

    @property
    def outputs(self) -> Outputs:
        """The image outputs, with the names of `classification_names`; empty for weights that only detect."""
        told, names = the_classes(self.backend.outputs), tuple(self.classification_names.values())
        return tuple(replace(told, names=names) if told and output is told else output for output in self.backend.outputs)

    @overload
    def __call__(self, images: AnImage, visualize: Path | None = None) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, images: Iterable[AnImage], visualize: Path | None = None) -> list[Prediction]: ...

    @torch.inference_mode()
    def __call__(self, images: AnImage | Iterable[AnImage], visualize: Path | None = None) -> Prediction | list[Prediction]:
        """Predict one image, or a list of images of any sizes.

        Args:
            images: an image of any kind that the class describes, or a list, a tuple or a generator of them: it is read to its
                end first.
            visualize: a folder for pictures of the feature maps of the first image (.pt only).

        Raises:
            ImageError: if a file, or the content of one, cannot be read.
            PredictError: if something is no image, or no ordered collection of them.
        """
        if not is_several(images):
            return self._predict([as_picture(images)], visualize)[0]
        pictures = []
        for number, image in enumerate(images, start=1):
            try:
                pictures.append(as_picture(image))
            except PredictError as error:
                raise type(error)(f"image {number} of those given: {error}") from None
        return self._predict(pictures, visualize)

    def _predict(self, pictures: Sequence[tuple[str | None, np.ndarray]], visualize: Path | None) -> list[Prediction]:
        paths, arrays = [path for path, _ in pictures], [array for _, array in pictures]
        found: dict[int, Prediction] = {}
        with self.profiles[0]:
            inputs = [self._letterboxed(array) for array in arrays]
        for batch in self._batches(inputs):
            outputs = self._detect(np.stack([inputs[index] for index in batch]), visualize)
            for index, boxes, values in zip(batch, *outputs, strict=True):
                array = arrays[index]
                boxes[:, :4] = _general.scale_boxes(inputs[index].shape[1:], boxes[:, :4], array.shape)
                height, width = array.shape[:2]
                answers = self._answers(values)
                seen = self._boxes(boxes), self._image_class(answers)
                found[index] = Prediction(paths[index], None, (height, width), *seen, array, answers)
        return [found[index] for index in range(len(arrays))]

    def _batches(self, inputs: list[np.ndarray]) -> list[list[int]]:
        """Indices of the images that run together: those of one shape."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(inputs):
            groups.setdefault(image.shape, []).append(index)
        step = self.batch_size
        return [group[start : start + step] for group in groups.values() for start in range(0, len(group), step)]

    def _letterboxed(self, array: np.ndarray) -> np.ndarray:
        """(3, h, w) uint8, RGB: scaled to the input size, the rest filled up; .pt weights need no more than whole strides."""
        scaled = _letterbox(array, self.imgsz, stride=self.backend.stride, auto=self.backend.pt)[0]
        return np.ascontiguousarray(scaled[..., ::-1].transpose(2, 0, 1))

    def _detect(self, batch: np.ndarray, visualize: Path | None) -> tuple[list[Tensor], list[Tensor | None]]:
        """Boxes (n, 6: corners in pixels of the input, confidence, class) and answers (1, W) of each image."""
        with self.profiles[0]:
            images = torch.from_numpy(batch).to(self.backend.device)
            images = (images.half() if self.backend.fp16 else images.float()) / 255
        with self.profiles[1]:
            outputs = self.backend(images, augment=self.augment, visualize=visualize or False)
        predictions, answers = outputs if self.backend.outputs else (outputs, None)
        with self.profiles[2]:
            boxes = _general.non_max_suppression(predictions, **self.nms)
        return boxes, [None] * len(batch) if answers is None else list(answers.split(1))

    def _boxes(self, boxes: Tensor) -> tuple[DetectedBox, ...]:
        names = self.names
        return tuple(
            DetectedBox(int(index), names.get(int(index), str(int(index))), confidence, *corners)
            for *corners, confidence, index in boxes.tolist()
        )

    def _answers(self, values: Tensor | None) -> tuple[Answer, ...]:
        if values is None:
            return ()
        parts = zip(self.outputs, split(self.backend.outputs, values), strict=True)
        answers = [Answer(output, tuple(part[0].tolist())) for output, part in parts]
        return tuple(
            answer._replace(unsure=isinstance(answer.output, Classes) and max(answer.values) < self.abstain) for answer in answers
        )

    def _image_class(self, answers: Sequence[Answer]) -> ImageClass | None:
        told = the_classes(tuple(answer.output for answer in answers))
        for output, values, unsure in answers:
            if told and output is told and not unsure:
                best = max(range(len(values)), key=values.__getitem__)
                return ImageClass(best, told.names[best], values[best], dict(zip(told.names, values, strict=True)))
        return None

    def _known(self, classes: Sequence[int] | None) -> list[int] | None:
        unknown = [index for index in classes or () if index not in self.names]
        if unknown:
            known = ", ".join(f"{index} {name}" for index, name in self.names.items())
            raise PredictError(f"classes {', '.join(map(str, unknown))}: the weights know {known}")
        return None if classes is None else list(classes)

    def _size(self, imgsz: int | Sequence[int], fixed: tuple[int, int] | None) -> list[int]:
        wanted = [imgsz] if isinstance(imgsz, int) else list(imgsz)
        wanted = wanted * 2 if len(wanted) == 1 else wanted
        if len(wanted) != 2 or min(wanted) < 1:
            raise PredictError(f"imgsz is {imgsz}: expected pixels, one number or height and width")
        if fixed and tuple(wanted) != fixed:
            raise PredictError(
                f"imgsz is {wanted[0]} x {wanted[1]}, but the weights were exported for {fixed[0]} x {fixed[1]}: leave it out, "
                f"or export them for that size"
            )
        return wanted if fixed else _general.check_img_size(wanted, s=self.backend.stride)


def load_backend(
    weights: str | Path | Sequence[str | Path], device: str, half: bool, dnn: bool, data: str | Path | None
) -> JointBackend:
    """Upstream's backend for `weights`, ready to run.

    Raises:
        PredictError: if they are not there or cannot be loaded, or if there is no such device.
    """
    names = [str(weights)] if isinstance(weights, (str, Path)) else [str(name) for name in weights]
    device = "" if device.strip().lower() == "auto" else device
    try:
        chosen = upstream("utils.torch_utils").select_device(device)
    except AssertionError as error:
        raise PredictError(str(error)) from None
    try:
        backend = JointBackend(names if len(names) > 1 else names[0], device=chosen, dnn=dnn, data=data, fp16=half)
    except Exception as error:  # a missing file, a foreign one, a library that is not installed: each format in its own way
        missing = [name for name in names if "://" not in name and not Path(name).exists()]
        if missing:
            raise PredictError(f"weights {', '.join(missing)}: no such file") from None
        raise PredictError(f"weights {', '.join(names)} cannot be loaded: {why_unreadable(names, error)}") from error
    return backend.eval()
