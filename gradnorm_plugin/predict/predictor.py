"""`Predictor`: weights of any format that upstream runs, images in, predictions out."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import BinaryIO, TypeAlias, overload

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from gradnorm_plugin.model import DEFAULT_SIZE
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.model.checkpoint import why_unreadable
from gradnorm_plugin.model.guided import Regions
from gradnorm_plugin.names import without_secrets
from gradnorm_plugin.outputs import Classes, Outputs, split, the_classes
from gradnorm_plugin.predict import PredictError
from gradnorm_plugin.predict.drawing import DetectedBox, Region
from gradnorm_plugin.predict.images import as_picture, is_several
from gradnorm_plugin.predict.prediction import Answer, Prediction, Reason, answered, the_image_class
from gradnorm_plugin.upstream.gateway import upstream

_general = upstream("utils.general")
_letterbox = upstream("utils.augmentations").letterbox
_box_iou = upstream("utils.metrics").box_iou

_LARGEST = 1 << 15
"""Pixels of a side of the input: OpenCV's functions take no more."""

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
        weights: str | Path | Sequence[str | Path] | JointBackend,
        imgsz: int | Sequence[int] | None = None,
        conf_thres: float = 0.25,
        iou_thres: float = 0.45,
        max_det: int = 1000,
        device: str | int | torch.device = "",
        classes: Sequence[int] | None = None,
        agnostic_nms: bool = False,
        augment: bool = False,
        half: bool = False,
        dnn: bool = False,
        data: str | Path | None = None,
        batch_size: int = 8,
        abstain: float = 0.0,
        bfloat16: bool = False,
    ) -> None:
        """Load the weights.

        Args:
            weights: .pt (several make an ensemble), TorchScript, ONNX, OpenVINO, or what else upstream's `detect.py` takes; or
                a backend that is loaded, which stays on its device and in its precision.
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
            bfloat16: compute in bfloat16, which takes less time on a processor that has instructions for it (.pt only).

        Raises:
            PredictError: if the weights or a setting cannot be used.
        """
        self.backend = weights if isinstance(weights, JointBackend) else load_backend(weights, device, half, dnn, data)
        if bfloat16:
            try:
                self.backend.use_bfloat16()
            except ValueError as error:
                raise PredictError(str(error)) from None
        if augment and not self.backend.pt:
            raise PredictError("augmented inference needs .pt weights: an exported file sees an image once")
        for name, share in (("conf_thres", conf_thres), ("iou_thres", iou_thres), ("abstain", abstain)):
            if not (isinstance(share, Real) and 0 <= share <= 1):
                raise PredictError(f"{name} is {share!r}: expected 0 to 1")
        for name, number in (("max_det", max_det), ("batch_size", batch_size)):
            if not (isinstance(number, Integral) and number >= 1):
                raise PredictError(f"{name} is {number!r}: expected a whole number, at least 1")
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
        size = self.backend.usual_size or DEFAULT_SIZE if imgsz is None else imgsz
        self.imgsz = self._size(size, self.backend.fixed_size)
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
                seen = self._boxes(boxes), the_image_class(answers)
                found[index] = Prediction(paths[index], None, (height, width), *seen, array, answers, explainer=self._reasons)
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
        height, width = array.shape[:2]
        ratio = min(self.imgsz[0] / height, self.imgsz[1] / width)
        if min(height, width) * ratio <= 0.5:  # so narrow that upstream would scale it to no pixel
            array = cv2.resize(array, (max(1, round(width * ratio)), max(1, round(height * ratio))))
        scaled = _letterbox(array, self.imgsz, stride=self.backend.stride, auto=self.backend.pt)[0]
        return np.ascontiguousarray(scaled[..., ::-1].transpose(2, 0, 1))

    def _detect(self, batch: np.ndarray, visualize: Path | None) -> tuple[list[Tensor], list[Tensor | None]]:
        """Boxes (n, 6: corners in pixels of the input, confidence, class) and answers (1, W) of each image."""
        with self.profiles[0]:
            images = torch.from_numpy(batch).to(self.backend.device)
            images = (images.half() if self.backend.fp16 else images.float()) / 255
        with self.profiles[1]:
            outputs = self.backend(images, augment=self.augment, **({"visualize": visualize} if visualize else {}))
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
        return tuple(answered(output, part[0].tolist(), self.abstain) for output, part in parts)

    def check_explain(self) -> None:
        """See whether the weights can tell why they say something.

        Raises:
            PredictError: saying why not.
        """
        if not self.backend.pt:
            raise PredictError("explain needs .pt weights: an exported file gives no gradients")
        if not self.backend.outputs:
            raise PredictError("explain tells why something is said of the whole image, and these weights only detect")
        if self.backend.joint is None:
            raise PredictError("explain needs one .pt file: the networks of an ensemble have their reasons each")

    @torch.inference_mode(False)
    def _reasons(self, found: Prediction, names: Sequence[str]) -> list[Reason]:
        """Why the outputs of these names, or all, say what they say in `found`."""
        self.check_explain()
        known = [answer.output.name for answer in found.answers]
        if unknown := [name for name in names if name not in known]:
            raise PredictError(f"explain {', '.join(unknown)}: the image outputs are {', '.join(known)}")
        start, wanted = 0, []  # output, its place, words, column of its logit
        for place, answer in enumerate(found.answers):
            if not names or answer.output.name in names:
                behind = answer.output.behind(answer.array)
                wanted += [(answer.output, place, text, start + index) for index, text in behind.items()]
            start += answer.output.width
        scaled = self._letterboxed(found.image)
        image = torch.from_numpy(scaled)[None].to(self.backend.device)
        image = (image.half() if self.backend.fp16 else image.float()) / 255
        cells, regions = self.backend.explain(image, [column for *_, column in wanted])
        heats = _over_the_image(cells.float(), scaled.shape[1:], found.shape)
        objects = [() if of_head is None else self._objects(of_head, scaled.shape[1:], found.shape) for of_head in regions]
        return [
            Reason(output.name, text, heat, objects[place]) for heat, (output, place, text, _) in zip(heats, wanted, strict=True)
        ]

    def _objects(self, regions: Regions, inside: tuple[int, int], shape: tuple[int, int]) -> tuple[Region, ...]:
        """What a guided head has looked into in one image, those of one object together, with the corners of the surest."""
        corners = _general.scale_boxes(inside, _general.xywh2xyxy(regions.boxes[0]), shape)
        classes = torch.arange(len(corners), device=corners.device) % regions.kinds
        overlap = _box_iou(corners, corners) * (classes[:, None] == classes)
        boxes = self._boxes(torch.cat([corners, regions.scores.T, classes[:, None]], 1))
        shares: dict[int, float] = {}
        for index in regions.scores[0].argsort(descending=True).tolist():
            surer = [kept for kept in shares if overlap[index, kept] > self.nms["iou_thres"]]
            kept = max(surer, key=lambda kept: float(overlap[index, kept]), default=index)
            shares[kept] = shares.get(kept, 0.0) + float(regions.attention[0, index])
        return tuple(Region(boxes[index], shares[index]) for index in sorted(shares, key=shares.__getitem__, reverse=True))

    def _known(self, classes: Sequence[int] | None) -> list[int] | None:
        if classes is not None and (isinstance(classes, str) or not isinstance(classes, Iterable)):
            raise PredictError(f"classes is {classes!r}: expected a list of numbers")
        unknown = [index for index in classes or () if index not in self.names]
        if unknown:
            known = ", ".join(f"{index} {name}" for index, name in self.names.items())
            raise PredictError(f"classes {', '.join(map(str, unknown))}: the weights know {known}")
        return None if classes is None else list(classes)

    def _size(self, imgsz: int | Sequence[int], fixed: tuple[int, int] | None) -> list[int]:
        wanted = list(imgsz) if isinstance(imgsz, Iterable) else [imgsz]
        wanted = wanted * 2 if len(wanted) == 1 else wanted
        if len(wanted) != 2 or not all(isinstance(side, Integral) and 1 <= side <= _LARGEST for side in wanted):
            raise PredictError(f"imgsz is {imgsz!r}: expected pixels, one number or height and width, up to {_LARGEST}")
        wanted = [int(side) for side in wanted]
        if fixed and tuple(wanted) != fixed:
            raise PredictError(
                f"imgsz is {wanted[0]} x {wanted[1]}, but the weights were exported for {fixed[0]} x {fixed[1]}: leave it out, "
                f"or export them for that size"
            )
        return wanted if fixed else _general.check_img_size(wanted, s=self.backend.stride)


def _over_the_image(cells: Tensor, inside: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """(n, H, W) from 0 to 1 over the pixels of an image of `shape`, of (n, h, w) over the cells of its letterboxed form.

    Args:
        inside: height and width of that.
    """
    gain = min(inside[0] / shape[0], inside[1] / shape[1])
    # The picture lies in the middle: a scale about the centre takes off what fills it up
    place = torch.diag(cells.new_tensor([shape[1] * gain / inside[1], shape[0] * gain / inside[0]]))
    grid = functional.affine_grid(functional.pad(place, (0, 1))[None], [1, 1, *shape], align_corners=False)
    smooth = functional.grid_sample(cells[None], grid, mode="bicubic", padding_mode="border", align_corners=False)[0].clamp(min=0)
    most = smooth.amax((1, 2), keepdim=True)
    return (smooth / torch.where(most > 0, most, 1)).cpu().numpy()


@torch.inference_mode(False)  # wherever it is called: weights that are made in inference mode give no gradients
def load_backend(
    weights: str | Path | Sequence[str | Path], device: str | int | torch.device, half: bool, dnn: bool, data: str | Path | None
) -> JointBackend:
    """Upstream's backend for `weights`, ready to run.

    Raises:
        PredictError: if they are not there or cannot be loaded, or if there is no such device.
    """
    if not weights or not isinstance(weights, (str, os.PathLike, Sequence)):
        raise PredictError(f"weights is {weights!r}: expected the path of a file, or several")
    names = [os.fspath(name) for name in ([weights] if isinstance(weights, (str, os.PathLike)) else weights)]
    device = "" if str(device).strip().lower() in ("auto", "none") else str(device)
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
        message = f"weights {', '.join(names)} cannot be loaded: {why_unreadable(names, error)}"
        raise PredictError(without_secrets(message)) from error
    return backend.eval()
