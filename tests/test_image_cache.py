"""`--cache disk`: pixels on disk are used only if asked for, whole, and those of the picture as it is now."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_dataset import NAMES, SIZE, joint, write_images

from gradnorm_plugin.data.caches import SUFFIX
from gradnorm_plugin.data.dataset import create_joint_dataloader
from gradnorm_plugin.outputs import class_output


def paint(file: Path, grey: int, size: tuple[int, int] = (SIZE, SIZE)) -> None:
    """A picture of one shade, at another time than the one before."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    cv2.imwrite(str(file), np.full((*size, 3), grey, np.uint8))
    os.utime(file, ns=(before + 1_000_000_000, before + 1_000_000_000))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = write_images(tmp_path, [0, 1])
    for file in folder.iterdir():
        paint(file, 200)
    return folder


def greys(folder: Path, cache: str | None = "disk") -> list[int]:
    """What a data set loads, image by image."""
    dataset = joint(folder, cache_images=cache)
    return [int(dataset.load_image(index)[0].mean()) for index in range(len(dataset))]


@pytest.mark.parametrize("size", [(SIZE, SIZE), (40, 90)])
def test_a_picture_that_changed_is_read_anew(images: Path, size: tuple[int, int]) -> None:
    assert greys(images) == [200, 200]
    assert len(list(images.glob(f"*{SUFFIX}"))) == 2
    paint(images / "00_0.png", 20, size)
    assert greys(images) == [20, 200]
    assert greys(images) == [20, 200]


def test_pictures_that_change_names_are_read_anew_though_size_and_time_are_the_same(tmp_path: Path) -> None:
    folder = write_images(tmp_path, [0])
    (folder / "00_0.png").unlink()
    for name, grey in (("a.bmp", 30), ("b.bmp", 120)):
        cv2.imwrite(str(folder / name), np.full((SIZE, SIZE, 3), grey, np.uint8))
        os.utime(folder / name, ns=(0, 0))  # as archives with fixed times unpack
    assert greys(folder) == [30, 120]
    for before, after in (("a", "c"), ("b", "a"), ("c", "b")):
        (folder / f"{before}.bmp").rename(folder / f"{after}.bmp")
    assert greys(folder) == [120, 30]


def test_pixels_are_taken_from_the_disk_only_if_asked_for(images: Path) -> None:
    assert greys(images) == [200, 200]
    for file in images.glob(f"*{SUFFIX}"):
        content = file.read_bytes()
        file.write_bytes(content.replace(bytes([200]) * 300, bytes([90]) * 300))
    assert all(grey < 200 for grey in greys(images)), "read from the disk"
    assert greys(images, None) == greys(images, "ram") == [200, 200]


def test_pictures_of_one_stem_have_their_own_pixels(tmp_path: Path) -> None:
    folder = write_images(tmp_path, [0])
    (folder / "00_0.png").rename(folder / "a.png")
    for name, grey in (("a.png", 30), ("a.jpg", 120), ("a.bmp", 220)):
        paint(folder / name, grey)
    for _ in range(2):
        assert greys(folder) == [220, 120, 30]


@pytest.mark.parametrize("cache", ["disk", "ram", None])
def test_npy_files_that_lie_there_are_nothing(images: Path, cache: str | None) -> None:
    """As an earlier run of YOLOv5 left them, or a stranger."""
    np.save(images / "00_0.npy", np.zeros((SIZE, SIZE, 3), np.uint8))
    np.save(images / "01_1.npy", np.array([{"a": 1}], dtype=object))
    assert greys(images, cache) == [200, 200]


@pytest.mark.parametrize("how", ["cut", "empty", "text", "objects", "shape", "another picture's"])
def test_pixels_that_are_not_whole_are_made_anew(images: Path, how: str) -> None:
    assert greys(images) == [200, 200]
    entry, other = (images / f"{name}.png{SUFFIX}" for name in ("00_0", "01_1"))
    sound = entry.read_bytes()
    if how == "cut":
        entry.write_bytes(sound[:-100])
    elif how == "empty":
        entry.write_bytes(b"")
    elif how == "text":
        entry.write_text("hello" * 100)
    elif how == "objects":
        with entry.open("wb") as file:
            np.save(file, np.array([{"a": 1}], dtype=object))
            file.write(sound[-16:])
    elif how == "shape":
        with entry.open("wb") as file:
            np.save(file, np.zeros((SIZE, SIZE), np.uint8))
            file.write(sound[-16:])
    else:
        paint(images / "01_1.png", 50)
        greys(images)
        shutil.copyfile(other, entry)
    assert greys(images)[0] == 200
    assert entry.read_bytes() == sound


def test_a_link_is_neither_read_nor_written_through(images: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (images / f"00_0.png{SUFFIX}").symlink_to(precious)
    assert greys(images) == [200, 200]
    assert precious.read_text() == "mine" and not (images / f"00_0.png{SUFFIX}").is_symlink()


def test_a_folder_that_cannot_be_written_to(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Here because folders stand where the pixels would; permissions do not stop the user that runs tests in a container."""
    for name in ("00_0", "01_1"):
        (images / f"{name}.png{SUFFIX}").mkdir()
    logger = logging.getLogger("yolov5")
    logger.addHandler(caplog.handler)
    try:
        assert greys(images) == [200, 200]
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.text.count("--cache disk: nothing can be written beside the images (Is a directory)") == 1
    assert not list(images.glob(".*")), "no temporary file is left"


@pytest.mark.parametrize("cache", ["disk", "ram"])
def test_an_image_that_opencv_cannot_read(images: Path, cache: str) -> None:
    from PIL import Image

    (images / "00_0.png").unlink()
    file = images / "00_0.tif"
    Image.fromarray(np.zeros((16, 16), np.float32)).save(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(AssertionError, match="Image Not Found .*00_0.tif"):
        loader, _ = create_joint_dataloader(str(images), SIZE, 2, 32, cache=cache, workers=0, outputs=(class_output(NAMES),))
        list(loader)
