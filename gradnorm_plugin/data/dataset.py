"""Upstream's data set and loader with what is said of each image beside its boxes, and augmentation that keeps it true.

B images in a batch; boxes and images are exactly what upstream makes of them.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gradnorm_plugin.data.caches import CachedImage, DeepImage, cache_file, write_targets
from gradnorm_plugin.data.checking import FilePool, LabelScan, collector_paused, scan_labels
from gradnorm_plugin.data.description import DescriptionError
from gradnorm_plugin.data.listing import ImageLists, LoadImagesAndLabels, warn
from gradnorm_plugin.data.targets import JointTargets
from gradnorm_plugin.outputs import CLASS, Outputs
from gradnorm_plugin.pictures import is_deep
from gradnorm_plugin.upstream.gateway import swapped, upstream

_dataloaders = upstream("utils.dataloaders")
_MOST_POOLS = 500
"""Cached lists of images that may be combined; with an output that is a number, hardly two images share one."""


class JointDataset(ImageLists):
    """Upstream's data set whose items end with the image's targets, and whose mosaics and mixups combine images that agree.

    A labelled image (the anchor) is combined only with images that agree with it in every output or have no label for it, an
    unlabelled one with any; the result has the anchor's targets. Where that excludes nothing (no labels, one class,
    `mix_classes`), every random draw is upstream's. `targets` are by image output, in the order of upstream's `im_files`.
    """

    def __init__(
        self,
        path: str | list[str],
        *args: Any,
        outputs: Outputs,
        num_box_classes: int | None = None,
        mix_classes: bool = False,
        scan: LabelScan | None = None,
        root: Path | None = None,
        **kwargs: Any,
    ) -> None:
        """Upstream's arguments, then ours.

        Args:
            outputs: what is said of an image.
            num_box_classes: None leaves the upper bound of box classes to upstream.
            mix_classes: whether mosaics may be of images that differ.
            scan: what `check_labels` found; what has not changed since is not read again.
            root: the `path` of the data yaml, from which the paths in a list may count.

        Raises:
            LabelErrors: if a label file breaks the rules of `gradnorm_plugin.labels`.
            DescriptionError: if `path` has no images.
        """
        self.outputs = outputs
        self._bounds = (num_box_classes, outputs)
        self._given = scan
        self.lists, self.root = {} if scan is None else scan.lists, root
        arguments = inspect.signature(LoadImagesAndLabels).bind(path, *args, **kwargs).arguments
        self._on_disk = arguments.get("cache_images") == "disk"
        self._unwritten: OSError | None = None
        try:
            with collector_paused():
                super().__init__(path, *args, **kwargs)
        except Exception as error:
            if "_label_files" in vars(self):
                raise
            cause = error.__cause__ if isinstance(error.__cause__, DescriptionError) else error
            raise DescriptionError(str(cause)) from None  # upstream raises plain Exception where it finds no files
        # Upstream has filtered and, for rectangular batches, sorted its lists by now.
        places = {file: index for index, file in enumerate(self._scan.label_files)}
        order = np.array([places[file] for file in self._label_files], dtype=np.int64)
        self.targets = {name: values[order] for name, values in self._scan.targets.items()}
        self._keep_targets()
        del self._scan
        self.lists = {}
        if self._unwritten is not None:
            warn(
                f"--cache disk: nothing can be written beside the images ({self._unwritten.strerror}): images that are "
                f"not there already are read from their own files; --cache ram needs no disk"
            )
            self._unwritten = None
        self.mix_classes = mix_classes
        self._anchor: int | None = None
        self._pools: dict[bytes, Sequence[int] | None] = {}
        self._pools_of: Sequence[int] | None = None
        upstream("utils.general").LOGGER.info(kwargs.get("prefix", "") + self.summary())

    @property
    def label_files(self) -> list[str]:
        """Upstream's list. Its constructor names it before it reads a file: what it cannot read is no longer there afterwards."""
        return self._label_files

    @label_files.setter
    def label_files(self, files: list[str]) -> None:
        first = "_label_files" not in vars(self)
        self._label_files = files
        if first:
            self._scan = scan_labels(self.path, self, self._bounds, self._given)
            self._given = None
            if self._scan.results is not None:
                # Upstream's own cache may be older than a file whose size did not change; no cache is of this version.
                self.cache_version = None

    def cache_labels(self, path: Path = Path("./labels.cache"), prefix: str = "") -> dict[str, Any]:
        """Upstream's reading of all images and labels, and its cache of it; the files are not read twice."""
        vars(self).pop("cache_version", None)
        results = self._scan.results
        with swapped(_dataloaders, Pool=FilePool if results is None else partial(_Found, results, prefix)):
            found = super().cache_labels(path, prefix)
        with suppress(OSError):
            path.with_suffix(".cache.npy").unlink(missing_ok=True)  # upstream's temporary file, where the disk was full
        return found

    @property
    def npy_files(self) -> list[CachedImage | DeepImage]:
        """Where upstream looks for the pixels of each image: ours instead of its .npy files, and only under `--cache disk`.

        Images of more than 8 bits are always read there, for upstream's own reading takes their upper 8.
        """
        return self._npy_files

    @npy_files.setter
    def npy_files(self, files: Sequence[Path]) -> None:
        self._npy_files = [DeepImage(file) if is_deep(file) else CachedImage(file, self._on_disk) for file in self.im_files]

    def cache_images_to_disk(self, i: int) -> None:
        """Cache the pixels of image `i`, until writing fails for the first time."""
        cached = self.npy_files[i]
        if self._unwritten is None and isinstance(cached, CachedImage) and not cached.exists():
            try:
                cached.write(_dataloaders.cv2.imread)
            except OSError as error:
                self._unwritten = error

    def check_cache_ram(self, *args: Any, **kwargs: Any) -> bool:
        """Upstream's estimate from a few images; whether all can be read is seen when they are."""
        try:
            return super().check_cache_ram(*args, **kwargs)
        except AttributeError:  # OpenCV gives None for an image that it cannot read
            return True

    @property
    def image_classes(self) -> np.ndarray:
        """(images,) int64 of the output `class`, -1 for none."""
        return self.targets[CLASS]

    def _keep_targets(self) -> None:
        """Cache the targets for the next start; after upstream's cache, as ours implies that both are valid."""
        scan = self._scan
        if scan.results is None:
            return
        path = cache_file(self.path, scan.label_files)
        try:
            write_targets(path, scan.label_files, scan.states, scan.bounds, scan.targets)
        except OSError as error:
            warn(f"{path} cannot be written ({error.strerror}): every start will read all label files")

    def summary(self) -> str:
        """The number of images, their labels, and how many have none, in words."""
        parts = []
        for output in self.outputs:
            targets = self.targets[output.name]
            without = int((~output.known(targets)).sum())
            what = "class" if output.name == CLASS else output.name
            parts.append(f"{'' if output.name == CLASS else f'{what}: '}{output.summary(targets)}, {without} without {what}")
        return f"{len(self.im_files)} images: {'; '.join(parts)}"

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str, Any, dict[str, Any]]:
        """Upstream's (image, boxes, path, shapes) and the image's targets by output."""
        self._anchor = self.indices[index]
        try:
            item = super().__getitem__(index)
            return *item, {name: values[self._anchor] for name, values in self.targets.items()}
        finally:
            self._anchor = None

    def load_mosaic(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Upstream's mosaic of what may be combined with the anchor (also when it is mixup's second mosaic)."""
        anchor = index if self._anchor is None else self._anchor
        pool = None if self.mix_classes else self._pool(anchor)
        if pool is None:
            return super().load_mosaic(index)
        if index != anchor and not self._agrees(anchor, np.array([index]))[0]:
            index = random.choice(pool)
        everything, self.indices = self.indices, pool
        try:
            return super().load_mosaic(index)
        finally:
            self.indices = everything

    def _agrees(self, anchor: int, indices: np.ndarray) -> np.ndarray:
        """(indices,) bool: which images may be combined with that of index `anchor`."""
        fits = np.ones(len(indices), dtype=bool)
        for output in self.outputs:
            targets = self.targets[output.name]
            if output.known(targets[anchor : anchor + 1])[0]:
                fits &= output.agrees(targets[anchor], targets[indices]) | ~output.known(targets[indices])
        return fits

    def _pool(self, anchor: int) -> Sequence[int] | None:
        """Those of `indices` that may be combined with that of index `anchor`; None if all may.

        Upstream replaces `indices` each epoch under `--image-weights`, so pools are kept for one such object only.
        """
        if self._pools_of is not self.indices or len(self._pools) > _MOST_POOLS:
            self._pools, self._pools_of = {}, self.indices
        said = b"".join(values[anchor].tobytes() for values in self.targets.values())
        if said not in self._pools:
            indices = np.asarray(self.indices)
            fits = self._agrees(anchor, indices)
            self._pools[said] = None if fits.all() else indices[fits].tolist()
        return self._pools[said]

    @staticmethod
    def collate_fn(batch: Sequence[tuple]) -> tuple[Tensor, JointTargets, tuple[str, ...], tuple]:
        """Images (B, 3, H, W) uint8, targets, paths and shapes of one batch."""
        images, boxes, paths, shapes = LoadImagesAndLabels.collate_fn([item[:4] for item in batch])
        outputs = {name: torch.from_numpy(np.stack([item[4][name] for item in batch])) for name in batch[0][4]}
        return images, JointTargets(boxes, outputs), paths, shapes


class _Found:
    """Stands in for the process pool with which upstream reads its files: hands out the results of checking them."""

    def __init__(self, results: list[Sequence[Any]], prefix: str, processes: int) -> None:
        self.results, self.prefix = results, prefix

    def __enter__(self) -> _Found:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def imap(self, function: object, arguments: object) -> Iterator[Sequence[Any]]:
        """Upstream's results in the order of its files, each message with the prefix that was unknown before."""
        for *found, message in self.results:
            yield *found, self.prefix + message if message else message


class LoaderError(DescriptionError):
    """An image could not be read while a batch was made, or a process that makes batches has died."""


@contextmanager
def _one_error(workers: int) -> Iterator[None]:
    """Turn whatever goes wrong while a batch is made, here or in a worker, into a LoaderError that says what to do.

    Upstream's AssertionError passes: it says what is wrong with an image.
    """
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        text = str(error)
        line = text.strip().splitlines()[-1] if text.strip() else type(error).__name__
        if "shared memory" in text or "Bus error" in text or "bus error" in text:
            advice = (
                "/dev/shm is too small for the batches of the loader's workers: use --workers 0, or make it larger "
                "(docker run --shm-size=8g)"
            )
        elif "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text):
            advice = f"a worker of the loader was killed, most likely for lack of memory: use fewer --workers than {workers}"
        elif isinstance(error, MemoryError) or "MemoryError" in text or "Insufficient memory" in text:
            advice = "there is not enough memory for a batch: use fewer --workers, a smaller --batch-size or --imgsz"
        else:
            advice = "a batch cannot be made"
        raise LoaderError(f"{advice} ({line})") from error


class JointLoader:
    """Upstream's loader, whose errors while iterating are one message; everything else is the loader's own."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        with _one_error(self.loader.num_workers):
            yield from self.loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class _MakeDataset(partial[JointDataset]):
    """Stands in for the class from which upstream makes its data set and takes the collate function."""

    collate_fn = staticmethod(JointDataset.collate_fn)


def create_joint_dataloader(
    *args: Any,
    outputs: Outputs,
    num_box_classes: int | None = None,
    mix_classes: bool = False,
    scan: LabelScan | None = None,
    root: Path | None = None,
    **kwargs: Any,
) -> tuple[JointLoader, JointDataset]:
    """Upstream's `create_dataloader` (same arguments, then ours) for joint data: batches carry `JointTargets`.

    Iterating over the loader raises LoaderError if a batch cannot be made or a worker is gone.

    Raises:
        ValueError: if `quad` is asked for.
        LabelErrors: if a label file breaks the rules of `gradnorm_plugin.labels`.
        DescriptionError: if the path has no images.
    """
    create = _dataloaders.create_dataloader
    if inspect.signature(create).bind(*args, **kwargs).arguments.get("quad"):
        raise ValueError(
            "--quad cannot be used with image classes: it makes one image out of four of a batch, whose classes "
            "differ; leave it out (a larger --imgsz has a like effect)"
        )
    make_dataset = _MakeDataset(
        JointDataset,
        outputs=outputs,
        num_box_classes=num_box_classes,
        mix_classes=mix_classes,
        scan=scan,
        root=root,
    )
    with swapped(_dataloaders, LoadImagesAndLabels=make_dataset):
        loader, dataset = create(*args, **kwargs)
    return JointLoader(loader), dataset
