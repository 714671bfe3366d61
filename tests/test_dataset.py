"""Joint data through upstream's own loader: the right class beside every image, and augmentation that keeps it true.

Every image is of one colour, BGR (0, 0, 200) for class 0, (200, 0, 0) for class 1, (0, 200, 0) without a class, and
upstream pads with grey: a pixel with more blue than red can only come from class 1, one with more red from class 0.
"""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from test_labels import records
from torch import distributed
from torch.utils.data import DataLoader

from gradnorm_plugin.data import DescriptionError
from gradnorm_plugin.data.checking import check_labels
from gradnorm_plugin.data.dataset import JointDataset, JointLoader, LoaderError, create_joint_dataloader
from gradnorm_plugin.labels import LabelErrors, LabelRecord, write_label_file
from gradnorm_plugin.outputs import class_output
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.upstream.gateway import upstream

dataloaders = upstream("utils.dataloaders")

SIZE = 64
NAMES = {0: "warm", 1: "cold"}
COLOURS = {0: (0, 0, 200), 1: (200, 0, 0), -1: (0, 200, 0)}
GEOMETRY = dict.fromkeys(("degrees", "translate", "scale", "shear", "perspective", "copy_paste"), 0.0)
COLOUR = dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "flipud", "fliplr"), 0.0)
HYP = {**GEOMETRY, **COLOUR, "mosaic": 1.0, "mixup": 0.0}
STRONG_HYP = {**HYP, "mosaic": 0.7, "mixup": 0.5, "translate": 0.1, "scale": 0.5, "hsv_v": 0.4, "fliplr": 0.5}


def write_images(folder: Path, classes: list[int], shades: list[int] | None = None) -> Path:
    """Images `<number>_<class>.png` with a box each, of three aspect ratios (all square if shades are given)."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for index, image_class in enumerate(classes):
        height = SIZE if shades else (SIZE, SIZE // 2, SIZE * 3 // 4)[index % 3]
        colour = np.array(COLOURS[image_class]) * (shades[index] / 200 if shades else 1)
        picture = np.full((height, SIZE, 3), colour.round(), np.uint8)
        cv2.imwrite(str(folder / "images" / f"{index:02}_{image_class}.png"), picture)
        lines = [f"{index % 4} 0.5 0.5 {0.3 + index / 100} 0.4"]
        if image_class >= 0:
            lines += ["", " ".join(str(int(other == image_class)) for other in NAMES)]
        (folder / "labels" / f"{index:02}_{image_class}.txt").write_text("\n".join(lines) + "\n")
    return folder / "images"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("joint"), [0, 1, -1, 1, 0, 1, -1, 0, 1, 1, 1])


def joint(path: Path | str | list[str], hyp: dict[str, float] | None = None, **options: Any) -> JointDataset:
    paths = path if isinstance(path, list) else str(path)
    arguments = {"augment": hyp is not None, "hyp": hyp, "outputs": (class_output(NAMES),), "num_box_classes": 4}
    return JointDataset(paths, SIZE, 4, **{**arguments, **options})


def seed(value: int) -> None:
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def has(image: torch.Tensor, image_class: int) -> bool:
    """Whether an image (3, H, W; red, green, blue) shows the colour of the class (at most 2 off for rounding)."""
    red, _, blue = image.int()
    return bool(((red - blue if image_class == 0 else blue - red) > 2).any())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"workers": 2},
        {"rect": True, "pad": 0.5, "workers": 2},
        {"cache": "ram"},
        {"cache": "disk"},
        {"shuffle": True, "seed": 3},
        {"hyp": STRONG_HYP, "augment": True, "mix_classes": True, "shuffle": True, "workers": 2},
        {"hyp": STRONG_HYP, "augment": True, "mix_classes": True, "image_weights": True},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_batches_are_upstreams_and_carry_the_classes(images: Path, options: dict[str, Any]) -> None:
    """Our loader and upstream's give the same bytes; ours adds the class that stands in each image's file name."""
    theirs_options = {key: value for key, value in options.items() if key != "mix_classes"}
    arguments = (str(images), SIZE, 4, 32)
    seed(0)
    expected = list(dataloaders.create_dataloader(*arguments, **{"workers": 0, **theirs_options})[0])
    seed(0)
    loader, dataset = create_joint_dataloader(*arguments, outputs=(class_output(NAMES),), **{"workers": 0, **options})
    found = list(loader)
    assert isinstance(dataset, JointDataset)
    assert len(found) == len(expected) == 3
    for (image, targets, paths, shapes), (their_image, their_boxes, their_paths, their_shapes) in zip(
        found, expected, strict=True
    ):
        assert torch.equal(image, their_image) and torch.equal(targets.boxes, their_boxes)
        assert (paths, shapes) == (their_paths, their_shapes)
        assert targets.classes.tolist() == [int(Path(path).stem.split("_")[1]) for path in paths]


def test_distributed_loader(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rank, upstream's DistributedSampler is used; its barrier names a CUDA device, which gloo does not take."""
    barrier = distributed.barrier
    monkeypatch.setattr(distributed, "barrier", lambda device_ids: barrier())
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        loader, dataset = create_joint_dataloader(
            str(images), SIZE, 4, 32, rank=0, workers=0, shuffle=True, outputs=(class_output(NAMES),)
        )
        assert isinstance(loader.sampler, torch.utils.data.distributed.DistributedSampler)
        found = Counter(value for _, targets, _, _ in loader for value in targets.classes.tolist())
        assert found == Counter(dataset.image_classes.tolist())
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("mixup", [0.0, 1.0])
@pytest.mark.parametrize("mix_classes", [False, True])
def test_mosaic_and_mixup_show_one_class(images: Path, mixup: float, mix_classes: bool) -> None:
    dataset = joint(images, {**STRONG_HYP, "hsv_v": 0.0, "mosaic": 1.0, "mixup": mixup}, mix_classes=mix_classes)
    seed(1)
    mixed, with_unlabelled, mixed_unlabelled = 0, 0, 0
    for index in [*range(len(dataset))] * 12:
        image, _, path, _, said = dataset[index]
        image_class = int(said["class"])
        assert path == dataset.im_files[index] and image_class == dataset.image_classes[index]
        if image_class == -1:
            mixed_unlabelled += has(image, 0) and has(image, 1)
        else:
            mixed += has(image, 1 - image_class)
            with_unlabelled += bool((image[1].int() > image[[0, 2]].int().amax(0) + 2).any())
    assert mixed_unlabelled > 0 and with_unlabelled > 0
    assert (mixed > 0) == mix_classes


@pytest.mark.parametrize(
    ("classes", "mix_classes"), [([-1] * 7, False), ([0, 1, -1, 1, 0, 1, 0], True), ([1, 1, -1, 1, 1, 1, -1], False)]
)
def test_random_stream_is_upstreams_where_nothing_is_excluded(tmp_path: Path, classes: list[int], mix_classes: bool) -> None:
    path = str(write_images(tmp_path, classes))
    theirs = dataloaders.LoadImagesAndLabels(path, SIZE, 4, augment=True, hyp=STRONG_HYP)
    ours = joint(path, STRONG_HYP, mix_classes=mix_classes)
    results = []
    for dataset in (theirs, ours):
        seed(5)
        items = [dataset[index % 7] for index in range(28)]
        results.append((items, random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()))
    for expected, found in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(expected[0], found[0]) and torch.equal(expected[1], found[1])
        assert found[2:4] == expected[2:4]
    assert results[0][1:] == results[1][1:]


def test_companions_follow_the_indices_of_image_weights(tmp_path: Path) -> None:
    shades = [200, 190, 180, 200, 170, 160]
    dataset = joint(write_images(tmp_path, [0, 0, 0, 1, 0, 0], shades), HYP, image_weights=True)
    seed(2)
    for chosen in ([0, 3, 1, 1, 0, 3], [2, 4, 3, 2, 2, 5]):
        dataset.indices = chosen
        seen: set[int] = set()
        for _ in range(30):
            seen |= set(dataset[0][0][0].unique().tolist())
        assert seen - {114} == {shades[index] for index in chosen if index != 3}
        assert dataset.indices is chosen
        assert [int(dataset[index][4]["class"]) for index in range(6)] == [int(index == 3) for index in chosen]


def test_mosaic_outside_an_item(images: Path) -> None:
    """`load_mosaic` is upstream's public method: called by itself it takes its own image for the anchor."""
    dataset = joint(images, HYP)
    seed(3)
    for _ in range(20):
        picture, _ = dataset.load_mosaic(0)
        assert not has(torch.from_numpy(picture[:, :, ::-1].transpose(2, 0, 1).copy()), 1)


def test_filtered_images_keep_their_class(tmp_path: Path) -> None:
    path = write_images(tmp_path, [0, 1, 1, 0, -1])
    (tmp_path / "labels" / "01_1.txt").write_text("0 1\n")
    dataset = joint(path, min_items=1)
    assert dataset.image_classes.tolist() == [0, 1, 0, -1]
    assert [Path(file).stem for file in dataset.im_files] == ["00_0", "02_1", "03_0", "04_-1"]


def test_lists_of_images(images: Path, tmp_path: Path) -> None:
    files = sorted(images.glob("*.png"))
    (tmp_path / "some.txt").write_text("\n".join(str(file) for file in files[:2]))
    (images.parent / "others.txt").write_text(f"./images/{files[4].name}\n")
    dataset = joint([str(tmp_path / "some.txt"), str(images.parent / "others.txt")])
    assert dataset.im_files == [str(files[0]), str(files[1]), str(files[4])]
    assert dataset.image_classes.tolist() == [0, 1, 0]


def test_counts_are_logged(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(upstream("utils.general").LOGGER, "info", lines.append)
    joint(images, prefix="train: ")
    assert "train: 11 images: warm 3, cold 6, 2 without class" in lines


def test_pickled_for_spawned_workers(images: Path) -> None:
    copy = pickle.loads(pickle.dumps(joint(images, HYP)))
    seed(0)
    assert copy[0][4]["class"] == 0 and copy.image_classes.dtype == np.int64


@pytest.mark.parametrize("arguments", [((), {"quad": True}), ((0.0, False, -1, 0, False, True), {})])
def test_quad_is_refused(images: Path, arguments: tuple[tuple, dict[str, Any]]) -> None:
    args, kwargs = arguments
    head = (str(images), SIZE, 4, 32, False, None, False, False) if args else (str(images), SIZE, 4, 32)
    with pytest.raises(ValueError, match="--quad cannot be used with image classes: it makes one image out of four"):
        create_joint_dataloader(*head, *args, outputs=(class_output(NAMES),), **kwargs)


class Ended(JointDataset):
    """A data set whose worker ends as under a lack of memory."""

    def __getitem__(self, index: int) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_one_error(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, dataset = create_joint_dataloader(str(images), SIZE, 4, 32, workers=0, outputs=(class_output(NAMES),))
    dataset.__class__ = Ended
    ended = JointLoader(DataLoader(dataset, batch_size=2, num_workers=1, collate_fn=JointDataset.collate_fn))
    with pytest.raises(LoaderError, match="a worker of the loader was killed, .* use fewer --workers than 1"):
        list(ended)


SMALL_SHM = """
import subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm"], check=True)
from gradnorm_plugin.data.dataset import LoaderError, create_joint_dataloader
from gradnorm_plugin.outputs import class_output
loader, _ = create_joint_dataloader(sys.argv[1], 256, 4, 32, workers=1, outputs=(class_output(["a", "b"]),))
try:
    list(loader)
except LoaderError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="mounting a small /dev/shm is not permitted here",
)
def test_a_small_shm_is_one_error(images: Path) -> None:
    command = ["unshare", "-m", sys.executable, "-c", SMALL_SHM, str(images)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100)
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == 1 and last.startswith(
        "/dev/shm is too small for the batches of the loader's workers: use --workers 0"
    )


def test_image_weights_draw_pictures_without_boxes(tmp_path: Path) -> None:
    folder = write_images(tmp_path, [0, 1, 1, -1])
    for file in (tmp_path / "labels").glob("*_1.txt"):
        file.write_text("0 1\n")
    run = JointRun(Namespace(balancer="gradnorm"))
    run.outputs, run.datasets = (class_output(NAMES),), {"train": joint(folder)}
    labels = run.datasets["train"].labels
    weights = run.image_weights(labels, nc=4, class_weights=np.ones(4))
    assert weights.tolist() == pytest.approx([0.5 + 0.5, 0.25, 0.25, 0.5])
    run.datasets["train"].image_classes[:] = -1
    assert run.image_weights(labels, nc=4, class_weights=np.ones(4)).tolist() == [1, 0, 0, 1], (
        "as upstream where there are no classes"
    )


def test_upstream_is_put_back_after_an_error(tmp_path: Path) -> None:
    before = dataloaders.LoadImagesAndLabels
    with pytest.raises(DescriptionError, match="does not exist"):
        create_joint_dataloader(str(tmp_path / "none"), SIZE, 4, 32, outputs=(class_output(NAMES),))
    assert dataloaders.LoadImagesAndLabels is before


def description(folder: Path) -> dict[str, Any]:
    """What upstream's `check_dataset` makes of a data yaml, as far as labels go."""
    paths = {split: str(folder / split / "images") for split in ("train", "val")}
    return {**paths, "names": {0: "a", 1: "b", 2: "c", 3: "d"}, "nc": 4, "classification_names": list(NAMES.values())}


def test_all_wrong_files_of_all_splits_at_once(tmp_path: Path) -> None:
    """Also those whose image upstream would leave out with a warning, such as a coordinate beyond 1."""
    for split in ("train", "val"):
        write_images(tmp_path / split, [0, 1, -1])
    data = description(tmp_path)
    assert {split: found.targets["class"].tolist() for split, found in check_labels(data).items()} == {
        "train": [0, 1, -1],
        "val": [0, 1, -1],
    }

    wrong = tmp_path / "train" / "labels" / "00_0.txt"
    right = wrong.read_text()
    wrong.write_text("0 0.5 1.5 0.1 0.1\n1 0\n")
    (tmp_path / "val" / "labels" / "01_1.txt").write_text("\n0 1 0\n")
    with pytest.raises(LabelErrors) as caught:
        check_labels(data)
    assert [(Path(error.file).name, error.line) for error in caught.value.errors] == [("00_0.txt", 1), ("01_1.txt", 2)]
    assert str(caught.value).startswith("2 label files are wrong")
    with pytest.raises(LabelErrors, match="00_0.txt:1: coordinate 1.5 is outside 0..1"):
        create_joint_dataloader(data["train"], SIZE, 4, 32, outputs=(class_output(NAMES),))

    wrong.write_text(right)
    assert check_labels(data, splits=("train",))["train"].targets["class"].tolist() == [0, 1, -1]


def test_unusable_descriptions(tmp_path: Path) -> None:
    write_images(tmp_path / "train", [0])
    (tmp_path / "val" / "images").mkdir(parents=True)
    data = description(tmp_path)
    with pytest.raises(DescriptionError, match="No images found"):
        check_labels(data)
    with pytest.raises(DescriptionError, match="the data yaml has no `val`"):
        check_labels({**data, "val": None})
    with pytest.raises(DescriptionError, match="has no `classification_names`"):
        check_labels({**data, "classification_names": None})


def test_a_box_class_beyond_names(tmp_path: Path) -> None:
    path = write_images(tmp_path, [0, 1, 0, 1])
    with pytest.raises(LabelErrors, match="class 3 is outside names"):
        joint(path, num_box_classes=3)
    assert len(joint(path, num_box_classes=None)) == 4


@settings(deadline=None, max_examples=60)
@given(case=records())
def test_upstream_reads_what_we_accept(case: tuple[LabelRecord, int], tmp_path_factory: pytest.TempPathFactory) -> None:
    """YOLOv5's patched reader finds the very boxes of the record: no accepted file loses a line or its image."""
    record, num_image_classes = case
    image, label = (tmp_path_factory.getbasetemp() / name for name in ("agreed.png", "agreed.txt"))
    if not image.exists():
        cv2.imwrite(str(image), np.zeros((16, 16, 3), np.uint8))
    write_label_file(label, record, 4, num_image_classes)
    file, boxes, _, segments, *_, corrupt, message = dataloaders.verify_image_label((str(image), str(label), ""))
    assert file and not corrupt, message
    expected = {tuple(np.float32(box)) for box in record.boxes} if record.boxes else set()
    for polygon in record.polygons:
        points = np.float32(polygon.points)
        low, high = points.min(0), points.max(0)
        expected.add((np.float32(polygon.class_index), *((low + high) / 2), *(high - low)))
    found = {tuple(row) for row in boxes}
    assert len(found) == len(expected) and all(any(np.allclose(row, other, atol=1e-6) for other in found) for row in expected)
    assert len(segments) == (len(found) if record.polygons else 0)
