"""Lists of images as people write them, and label files that lie near and are not read: found, or named with what to do."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path

import cv2
import pytest
import yaml
from joint_data import write_joint_dataset

from gradnorm_plugin.data.checking import LabelScan, check_labels
from gradnorm_plugin.data.dataset import JointDataset
from gradnorm_plugin.data.description import DescriptionError, find_dataset, image_outputs
from gradnorm_plugin.outputs import class_output
from gradnorm_plugin.upstream.gateway import upstream

dataloaders = upstream("utils.dataloaders")

SIZE = 64
NAMES = [f"{index}.jpg" for index in range(4)]
EVERY_CLASS = [0, 1, 2, 0]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The yaml of a sound data set; files are read in threads."""
    monkeypatch.setattr(dataloaders, "Pool", ThreadPool)
    (tmp_path / "set").mkdir()
    return write_joint_dataset(tmp_path / "set", images=4, size=32, unlabelled=0)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = upstream("utils.general").LOGGER
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def change(data: Path, **keys: object) -> Path:
    data.write_text(yaml.safe_dump({**yaml.safe_load(data.read_text()), **keys}), encoding="utf-8")
    return data


def check(data: Path) -> dict[str, LabelScan]:
    return check_labels(find_dataset(data), trained=("boxes", "class"))


def joined(lines: list[str], end: str = "\n") -> bytes:
    return "".join(line + end for line in lines).encode()


PLAIN = [f"./images/train/{name}" for name in NAMES]
LISTS = {
    "plain": joined(PLAIN),
    "without ./": joined([f"images/train/{name}" for name in NAMES]),
    "trailing blanks": joined([f" {line} \t" for line in PLAIN]),
    "byte order mark": b"\xef\xbb\xbf" + joined(PLAIN),
    "UTF-16": "\n".join(PLAIN).encode("utf-16"),
    "Windows line ends": joined(PLAIN, "\r\n"),
    "old Mac line ends": joined(PLAIN, "\r"),
    "empty lines": joined(PLAIN, "\n\n  \n"),
    "backslashes": joined([line.replace("/", "\\") for line in PLAIN]),
    "quotes": joined([f'"{line}"' for line in PLAIN]),
    "comment": b"# the training images\n" + joined(PLAIN),
    "home": joined([f"~/images/train/{name}" for name in NAMES]),
    "not normal": joined([f"./images/val/../train/{name}" for name in NAMES]),
    "twice": joined([*PLAIN, *PLAIN[:2]]),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("place", ["list.txt", "lists/train.txt"], ids=["in the root", "in a folder"])
def test_a_list_is_read_as_it_is_meant(data: Path, name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths count from the list or from the yaml's `path`."""
    monkeypatch.setenv("HOME", str(data.parent))
    (data.parent / place).parent.mkdir(exist_ok=True)
    (data.parent / place).write_bytes(LISTS[name])
    found = find_dataset(change(data, train=place))
    scan = check_labels(found, trained=("boxes", "class"))["train"]
    dataset = JointDataset(found["train"], SIZE, 4, outputs=image_outputs(found), scan=scan, root=Path(found["path"]))
    assert [Path(file).name for file in dataset.im_files] == NAMES and dataset.image_classes.tolist() == EVERY_CLASS
    assert all(len(boxes) == 2 for boxes in dataset.labels)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'["images/train/0.jpg", "images/train/1.jpg"]', "is not the path of an image: a list has one path in each line"),
        (b'[\n"images/train/0.jpg",\n"images/train/1.jpg"\n]', "list.txt:1: '[' is not the path of an image"),
        (b"image,label\nimages/train/0.jpg,1\n", "list.txt:1: 'image,label' is not the path of an image"),
        (b"./images/train/0.jpg 3,4,20,20,0\n", "list.txt:1: "),
        (
            "./images/train/é.jpg\n".encode("latin-1"),
            "list.txt:1: byte 15 of the file (0xE9) is not UTF-8: save the file as UTF-8",
        ),
        (b"./images/train/0.jpg\n./images/tr\0ain/1.jpg\n", "list.txt:2: './images/tr\\x00ain/1.jpg': no file name has"),
        (b"\n\n", "No images found"),
    ],
)
def test_a_list_of_something_else_is_one_error(data: Path, content: bytes, message: str) -> None:
    (data.parent / "list.txt").write_bytes(content)
    with pytest.raises(DescriptionError) as caught:
        check(change(data, train="list.txt"))
    assert message in str(caught.value)


def test_what_a_list_leaves_out_is_told(data: Path, warnings: list[str]) -> None:
    (data.parent / "images/train/x.gif").write_bytes(b"GIF89a")
    (data.parent / "list.txt").write_bytes(joined([*PLAIN, PLAIN[0], "./images/train/x.gif"]))
    check(change(data, train="list.txt"))
    assert len([line for line in warnings if "x.gif, of a kind that YOLOv5 does not read: left out" in line]) == 1
    assert len([line for line in warnings if "names 1 images more than once" in line]) == 1


def moved(data: Path, how: str) -> str:
    """Put the labels of the first two training images where nothing reads them; the name that one of them has then."""
    folder = data.parent
    labels = [folder / f"labels/train/{index}.txt" for index in range(2)]
    target = {
        "beside": lambda file: folder / "images/train" / file.name,
        "upper-case suffix": lambda file: file.with_suffix(".TXT"),
        "other folder": lambda file: folder / "Labels/train" / file.name,
        "flat": lambda file: folder / "labels" / file.name,
        "full name": lambda file: file.with_name(f"{file.stem}.jpg.txt"),
        "below": lambda file: folder / "images/train/labels" / file.name,
    }[how]
    for file in labels:
        target(file).parent.mkdir(parents=True, exist_ok=True)
        file.rename(target(file))
    return str(target(labels[0]))


WAYS = ["beside", "upper-case suffix", "other folder", "flat", "full name", "below"]


@pytest.mark.parametrize("how", WAYS)
def test_unread_labels_are_named(data: Path, how: str, warnings: list[str]) -> None:
    if how == "upper-case suffix" and (data.parent / "LABELS").exists():
        pytest.skip("small and capital letters are one on this file system")
    place = moved(data, how)
    check(data)
    told = [
        line
        for line in warnings
        if "2 images of `train` have no label file, but 2 label files lie near and are not read: " in line
    ]
    assert len(told) == 1 and place in told[0] and "move or rename them" in told[0]


@pytest.mark.parametrize("how", ["beside", "other folder"])
def test_no_label_at_all_is_one_error(data: Path, how: str) -> None:
    place = moved(data, how)
    shutil.rmtree(data.parent / "labels/train")
    with pytest.raises(
        DescriptionError, match="no label file found for `train`; looked in .*labels/train; 2 label files lie near"
    ) as e:
        check(data)
    assert place in str(e.value)


def test_images_without_any_label_near(data: Path, warnings: list[str]) -> None:
    shutil.rmtree(data.parent / "labels/val")
    check(data)
    assert any("no label file found for `val`; looked in" in line for line in warnings)
    shutil.rmtree(data.parent / "labels/train")
    with pytest.raises(
        DescriptionError, match=r"no label file found for `train`; looked in .*labels/train; .*\(docs/labels.md\)"
    ):
        check(data)
    (data.parent / "images/train/0.xml").write_text("<annotation/>")
    with pytest.raises(DescriptionError, match=r"0\.xml is of another format: `python -m gradnorm_plugin convert`"):
        check(data)


def test_capital_folders_are_named(data: Path) -> None:
    for name in ("images", "labels"):
        (data.parent / name).rename(data.parent / name.capitalize())
    with pytest.raises(DescriptionError, match=r"4 label files lie near and are not read: .*Labels/train/0\.txt"):
        check(change(data, train="Images/train", val="Images/val"))


def test_backgrounds_without_a_label_file_are_no_news(data: Path, warnings: list[str]) -> None:
    (data.parent / "labels/train/0.txt").unlink()
    check(data)
    assert not warnings


@pytest.mark.parametrize("also_there", [False, True], ids=["labels here", "labels in both places"])
def test_a_linked_folder_of_images_has_the_labels_beside_the_link(data: Path, also_there: bool, warnings: list[str]) -> None:
    target = data.parent.parent / "old/images/train"
    target.parent.mkdir(parents=True)
    (data.parent / "images/train").rename(target)
    (data.parent / "images/train").symlink_to(target)
    if also_there:
        other = data.parent.parent / "old/labels/train"
        other.mkdir(parents=True)
        for name in NAMES:
            (other / name).with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert check(data)["train"].targets["class"].tolist() == EVERY_CLASS
    assert any("is a link with two folders of labels" in line for line in warnings) == also_there


def test_a_linked_folder_whose_labels_lie_at_its_target(data: Path) -> None:
    (data.parent.parent / "mine/images").mkdir(parents=True)
    for split in ("train", "val"):
        (data.parent.parent / f"mine/images/{split}").symlink_to(data.parent / "images" / split)
    assert check(change(data, path=str(data.parent.parent / "mine")))["train"].targets["class"].tolist() == EVERY_CLASS


def test_a_link_back_to_a_folder_above_is_one_error(data: Path) -> None:
    (data.parent / "images/val/more").mkdir()
    (data.parent / "images/val/more/back").symlink_to("..")
    with pytest.raises(DescriptionError, match="images/val/more/back is a link that leads back to .*images/val, whose images"):
        check(data)


def test_brackets_in_a_path_are_letters(data: Path) -> None:
    """In YOLOv5's own data set as well."""
    folder = data.parent.rename(data.parent.parent / "set [v2] *?")
    found = find_dataset(change(folder / data.name, path=str(folder)))
    assert check_labels(found)["train"].targets["class"].tolist() == EVERY_CLASS
    assert len(dataloaders.LoadImagesAndLabels(found["train"], SIZE)) == 4


def test_images_that_are_trained_and_measured_on(data: Path, warnings: list[str]) -> None:
    check(change(data, val="images/train"))
    assert [line for line in warnings if "`val` has the very images of `train`" in line]
    (data.parent / "list.txt").write_bytes(joined(["./images/train/1.jpg", "./images/val/0.jpg"]))
    check(change(data, val="list.txt"))
    assert [line for line in warnings if "1 of 2 images of `val` are also in `train`" in line]


def test_pictures_that_are_nearly_in_both_splits_or_in_two_classes_are_told(data: Path, warnings: list[str]) -> None:
    folder = data.parent
    images = {split: sorted((folder / "images" / split).iterdir()) for split in ("train", "val")}
    check(change(data))
    assert not any("identical" in line or "same picture" in line for line in warnings), "different pictures are no news"
    picture = cv2.imread(str(images["train"][0]))
    cv2.imwrite(str(images["val"][1]), picture, [cv2.IMWRITE_JPEG_QUALITY, 70])
    images["train"][1].write_bytes(images["train"][0].read_bytes())
    check(change(data))
    near, twice = [line for line in warnings if "identical" in line or "same picture" in line]
    assert "images of `val` are nearly identical to one of `train`, which flatters" in near
    assert f"val/{images['val'][1].name} = train/{images['train'][0].name}" in near.replace("\\", "/")
    assert "1 images are the same picture as another, labelled differently" in twice


def test_a_relative_path_counts_from_the_yaml_too(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.yaml").write_text(change(data, path="set").read_text())
    assert check(tmp_path / "beside.yaml")["train"].targets["class"].tolist() == EVERY_CLASS
    without = {key: value for key, value in yaml.safe_load(data.read_text()).items() if key != "path"}
    data.write_text(yaml.safe_dump(without))
    assert check(data)["train"].targets["class"].tolist() == EVERY_CLASS
    with pytest.raises(DescriptionError, match="a relative `path` counts from .*yolov5.* or from the yaml's folder"):
        find_dataset(change(data, path="nowhere"))


@pytest.mark.parametrize("place", ["labels/train.cache", "labels/train.cache.npy", "labels/train.joint.cache"])
def test_no_cache_is_written_through_a_link(data: Path, place: str) -> None:
    """By YOLOv5's own data set neither."""
    precious = data.parent / "precious"
    for make in (
        lambda source: JointDataset(source, SIZE, outputs=(class_output(["a", "b", "c"]),)),
        dataloaders.LoadImagesAndLabels,
    ):
        precious.write_text("mine")
        (data.parent / place).unlink(missing_ok=True)
        (data.parent / place).symlink_to(precious)
        make(str(data.parent / "images/train"))
        assert precious.read_text() == "mine"
        for left in (data.parent / "labels").glob("train.*"):
            left.unlink()


def test_a_jpeg_is_not_mended_through_a_link(data: Path) -> None:
    image = data.parent / "images/train/0.jpg"
    photograph = data.parent / "photograph.jpg"
    photograph.write_bytes(image.read_bytes() + b"more")
    before = photograph.read_bytes()
    image.unlink()
    image.symlink_to(photograph)
    assert check(data)["train"].targets["class"].tolist() == EVERY_CLASS
    assert photograph.read_bytes() == before and not image.is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_not_waited_for(data: Path) -> None:
    image, label = data.parent / "images/train/0.jpg", data.parent / "labels/train/1.txt"
    image.unlink()
    os.mkfifo(image)
    assert check(data)["train"].results[0][0] is None
    label.unlink()
    os.mkfifo(label)
    with pytest.raises(ValueError, match=r"1\.txt: is not a file: remove it"):
        check(data)
