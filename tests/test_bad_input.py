"""Bad input: read right or refused with a message that names it; the table of what each gives is docs/bad-input.md."""

from __future__ import annotations

import io
import logging
import random
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joint_data import write_joint_dataset
from PIL import Image

from gradnorm_plugin.data.checking import check_labels, warn_of_absent
from gradnorm_plugin.data.dataset import JointDataset, create_joint_dataloader
from gradnorm_plugin.data.description import DescriptionError, classification_names, find_dataset, image_outputs
from gradnorm_plugin.labels import LabelError, LabelErrors, read_label_file, write_label_file
from gradnorm_plugin.outputs import class_output
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.option_files import read_checkpoint
from gradnorm_plugin.training.options import parse_options
from gradnorm_plugin.training.run import main
from gradnorm_plugin.upstream.gateway import upstream

dataloaders = upstream("utils.dataloaders")

SIZE = 64
NAMES = {0: "warm", 1: "cold"}
ONE_HOT = {0: "1 0\n", 1: "0 1\n"}
BOX = (0, 0.4, 0.25, 0.5, 0.3)


# Label files ---------------------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.sampled_from(["0", "1", "0.5", "1.0", "-0", "+1", "1e-3", ".5", "5.", "1e-400", "1e999", "0.1e1", "1_0", "0x1", "1,5"]),
    st.sampled_from(["nan", "inf", "-inf", "Infinity", "true", "None", "１", "½", "٣", "1\u00a00", "\ufeff0", "\x00", "#"]),
    st.floats(0, 1).map(repr),
    st.integers(-2, 9).map(str),
)
words = st.one_of(numbers, st.text(max_size=4))
rows = st.one_of(
    st.lists(words, max_size=9).map(" ".join),
    st.lists(st.floats(0, 1).map(repr), min_size=4, max_size=4).map(lambda values: "0 " + " ".join(values)),
    st.lists(st.floats(0, 1).map(repr), min_size=6, max_size=8).map(lambda values: "1 " + " ".join(values)),
    st.sampled_from(["1 0", "0 1", "0 1 0", "", " \t ", "3 0.5 0.5 0.25 0.25", "0 1 1 1 1"]),
)
ends = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
contents = st.one_of(
    st.binary(max_size=80),
    st.builds(lambda lines, end: end.join(lines).encode(), st.lists(rows, max_size=6), ends),
    st.builds(lambda lines: "\n".join(lines).encode("utf-16"), st.lists(rows, max_size=3)),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An image, and the place of its label file."""
    folder = tmp_path_factory.mktemp("one")
    cv2.imwrite(str(folder / "x.png"), np.zeros((16, 16, 3), np.uint8))
    return folder / "x.png", folder / "x.txt"


@settings(deadline=None, max_examples=300)
@given(content=contents)
@example(content=b"0 0.5 0.5 0.1 0.1\r0 0.5 0.5 0.2 0.2\r\r1 0")
@example(content=b"0 .5 5e-1 +.25 1.\n0 1")
def test_a_label_file_is_read_whole_or_refused(files: tuple[Path, Path], content: bytes) -> None:
    """Every non-blank line is a box, a polygon or the class; YOLOv5's own reader finds the same boxes; written, it reads back."""
    image, label = files
    label.write_bytes(content)
    try:
        record = read_label_file(label, 4, 2)
    except LabelError as error:
        assert error.line is not None and str(error).startswith(f"{label}:{error.line}: ") and "\n" not in str(error)
        return
    lines = [line for line in content.splitlines() if line.strip()]
    assert len(record.boxes) + len(record.polygons) + (record.image_class is not None) == len(lines)
    objects = record.boxes or [(outline.class_index, *np.ravel(outline.points)) for outline in record.polygons]
    for found, line in zip(objects, lines, strict=False):
        assert list(found) == [float(field) for field in line.split()]
    assert record.image_class is None or lines[-1].split().index(b"1") == record.image_class

    file, theirs, _, segments, *_, corrupt, message = dataloaders.verify_image_label((str(image), str(label), ""))
    assert file and not corrupt, message
    if record.polygons:
        outlines = {np.float32(np.ravel(outline.points)).tobytes() for outline in record.polygons}
        assert {segment.tobytes() for segment in segments} <= outlines and len(segments) == len(theirs)
    else:
        assert {tuple(row) for row in theirs} == {tuple(np.float32(box)) for box in record.boxes}

    write_label_file(label, record, 4, 2)
    assert read_label_file(label, 4, 2) == record


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 0.5 0.5 0.1 1_0", "x.txt:1: coordinate `1_0` is not a number"),
        ("0 0.5 0.5 0.1 0x1", "x.txt:1: coordinate `0x1` is not a number"),
        ("0 0.5 0.5 0.1 nan", "x.txt:1: coordinate `nan` is not a number"),
        ("0 0.5 0.5 0.1 1e999", "x.txt:1: coordinate 1e999 is outside 0..1"),
        ("1e999 0.5 0.5 0.1 0.1", "x.txt:1: class 1e999 is not a whole number"),
        ("\n0 0.5 0.5 0.1 0.1\x00", "x.txt:2: character U+0000 is not plain text"),
        ("0 0.5 0.5 0.1 ٣", "x.txt:1: character U+00D9 is not plain text"),
        ("0 " * 1_000_000, "x.txt:1: 1000000 values: expected 5 for a box"),
        ("9" * 1_000_000, "x.txt:1: 1 value: expected 5 for a box"),
    ],
)
def test_what_a_refused_line_is_told(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.txt").write_text(content, encoding="utf-8")
    with pytest.raises(LabelError) as caught:
        read_label_file(tmp_path / "x.txt", 4, 2)
    assert message in str(caught.value) and len(str(caught.value)) < 500


def test_a_line_of_a_million_digits_has_a_short_message(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(f"0 0.5 0.5 0.1 {'9' * 1_000_000}\n{'x' * 1_000_000}")
    with pytest.raises(LabelError, match=r"x.txt:1: coordinate 9{20,60}\.\.\.") as caught:
        read_label_file(tmp_path / "x.txt", 4, 2)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("last", ["1 0", "1 1"])
def test_200000_lines(tmp_path: Path, last: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text("".join(f"0 0.5 0.5 0.1 {(index + 1) / 200_001}\n" for index in range(200_000)) + last)
    start = time.process_time()
    if last == "1 0":
        record = read_label_file(path, 4, 2)
        assert len(record.boxes) == 200_000 and record.image_class == 0 and record.boxes[-1].h == 200_000 / 200_001
    else:
        with pytest.raises(LabelError, match="x.txt:200001: a one-hot line with 2 ones"):
            read_label_file(path, 4, 2)
    assert time.process_time() - start < 10, "linear in its length"


# The data yaml -------------------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=5), st.dates(), st.binary(max_size=3)
)
values = st.recursive(
    st.one_of(scalars, st.sampled_from(["images/train", "images/none", ".", "..", "list.txt", "joint.yaml", "a", "\0"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.integers(-1, 3), st.text(max_size=2), st.booleans(), st.none()), inner, max_size=3),
    ),
    max_leaves=5,
)
KEYS = ("names", "classification_names", "train", "val", "test", "path", "nc", "download")


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("described")
    write_joint_dataset(folder, images=2, size=32)
    (folder / "list.txt").write_text("./images/train/0.jpg\n")
    return folder


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads in the place of the processes that read label files: a fuzz has no time to start them."""
    monkeypatch.setattr(dataloaders, "Pool", ThreadPool)


def read_description(path: Path) -> str:
    """What training does with a data yaml: "" if it can be used, else the message."""
    try:
        found = find_dataset(path)
        names = classification_names(found)
        assert list(names) == list(range(len(names))) and all(isinstance(name, str) for name in names.values())
        assert list(found["names"]) == list(range(found["nc"]))
        assert check_labels(found).keys() == {"train", "val"}
    except (DescriptionError, LabelErrors) as error:
        assert str(error)
        return str(error)
    return ""


@pytest.mark.usefixtures("threads")
def test_any_values_in_a_data_yaml(joint: Path) -> None:
    """One or two keys of a sound data yaml become anything that YAML can say."""
    sound = yaml.safe_load((joint / "joint.yaml").read_text())
    path, results = joint / "fuzz.yaml", set()

    @settings(deadline=None, max_examples=200, database=None)
    @given(changes=st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=2))
    @example(changes={"names": {0: "a", 1: "b"}})
    def check(changes: dict[str, Any]) -> None:
        path.write_text(yaml.safe_dump({**sound, **changes}), encoding="utf-8")
        results.add(read_description(path))

    check()
    assert "" in results and len(results) > 10


@settings(deadline=None, max_examples=100)
@given(content=st.one_of(st.binary(max_size=60), st.text(alphabet="[]{}:,- \n!&*<>?|'\"%@`#ab01\t", max_size=60).map(str.encode)))
@example(content=b"[" * 3000)
@example(content=b"train: 2020-13-45\n")
@example(content=b"train: !!int x\n")
@example(content=b"a: &a [*a]\nnames: *a")
def test_any_text_as_a_data_yaml(joint: Path, content: bytes) -> None:
    path = joint / "text.yaml"
    path.write_bytes(content)
    assert read_description(path).startswith(str(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": "a"}, "`names` of the data yaml is 'a': write a list"),
        ({"names": []}, "`names` of the data yaml is empty"),
        ({"names": {1: "a", 2: "b"}}, "`names` of the data yaml is numbered 1, 2: number the classes 0, 1, 2, ..."),
        ({"names": ["a", ""]}, "`names` of the data yaml has '' at 1"),
        ({"names": ["a", b"b"]}, "`names` of the data yaml has b'b' at 1"),
        ({"names": ["a", None]}, ""),
        ({"names": None}, "`names` of the data yaml is None"),
        ({"train": 5}, "`train` of the data yaml is 5: write text"),
        ({"val": ["images/val", {}]}, "`val` of the data yaml is ['images/val', {}]: write text"),
        ({"path": 5}, "`path` of the data yaml is 5: write text"),
        ({"download": 5, "val": "gone"}, "`download` of the data yaml is 5: write text"),
        ({"train": "a\0b"}, "no file name has the character U+0000"),
        ({"train": "nothing"}, "nothing does not exist"),
        ({"train": "nul.txt"}, "no file name has the character U+0000"),
        ({"val": "nothing"}, "Dataset not found"),
        ({"val": None}, "the data yaml has no `val`"),
        ({"classification_names": 7}, "`classification_names` of the data yaml is 7"),
        ({"names": [0, 1]}, ""),
        ({"names": ["紅", "藍"], "nc": 99}, ""),
    ],
)
@pytest.mark.usefixtures("threads")
def test_what_a_data_yaml_is_told(joint: Path, changes: dict[str, Any], message: str) -> None:
    (joint / "nul.txt").write_text(f"{joint}/images/train/0\0.jpg\n")
    path = joint / "one.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load((joint / "joint.yaml").read_text()), **changes}), encoding="utf-8")
    found = read_description(path)
    assert message in found and bool(message) == bool(found)


# Images --------------------------------------------------------------------------------------------------------------


def encoded(picture: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(stream, kind, **options)
    return stream.getvalue()


def box_picture() -> Image.Image:
    """48 x 64 pixels, dark, with the box of `BOX` in light: what stays true in grey, in CMYK and after JPEG."""
    picture = np.full((48, 64, 3), 20, np.uint8)
    _, cx, cy, w, h = BOX
    picture[round((cy - h / 2) * 48) : round((cy + h / 2) * 48), round((cx - w / 2) * 64) : round((cx + w / 2) * 64)] = 230
    return Image.fromarray(picture)


def turned(orientation: int, kind: str) -> bytes:
    """The picture stored turned, with the EXIF orientation that turns it back."""
    method = {
        3: Image.Transpose.ROTATE_180,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(box_picture().transpose(method[orientation]), kind, exif=exif)


PLAIN = box_picture()
NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
DEEP = (np.asarray(PLAIN.convert("L")).astype(np.uint16) * 257).astype(np.uint16)
GOOD = {
    "plain.jpg": encoded(PLAIN, "JPEG"),
    "UPPER.JPG": encoded(PLAIN, "JPEG"),
    "two words 心臟 é.png": encoded(PLAIN, "PNG"),
    "deep.png": encoded(DEEP, "PNG"),
    "deep.tif": encoded(DEEP, "TIFF"),
    "grey.jpg": encoded(PLAIN.convert("L"), "JPEG"),
    "palette.png": encoded(PLAIN.convert("P"), "PNG"),
    "two_tone.png": encoded(PLAIN.convert("1", dither=Image.Dither.NONE), "PNG"),
    "alpha.png": encoded(PLAIN.convert("RGBA"), "PNG"),
    "cmyk.jpg": encoded(PLAIN.convert("CMYK"), "JPEG"),
    "pages.tif": encoded(PLAIN, "TIFF", save_all=True, append_images=[Image.fromarray(NOISE)]),
    "trailing.jpg": encoded(PLAIN, "JPEG") + b"more",
    **{f"exif{orientation}.jpg": turned(orientation, "JPEG") for orientation in (3, 5, 6, 8)},
    "exif6.png": turned(6, "PNG"),
}
CORRUPT = {
    "truncated.jpg": (encoded(NOISE, "JPEG")[:1500], "image file is truncated"),
    "truncated.png": (encoded(NOISE, "PNG")[:2000], "Truncated File Read"),
    "empty.jpg": (b"", "cannot identify image file"),
    "text.jpg": (b"hello\n", "cannot identify image file"),
    "renamed.jpg": (encoded(PLAIN, "GIF"), "invalid image format GIF"),
    "tiny.png": (encoded(NOISE[:5, :5], "PNG"), "image size (5, 5) <10 pixels"),
    "gone.jpg": (None, "No such file or directory"),
}


def place(folder: Path, name: str, content: bytes | None, image_class: int | None = 0) -> Path:
    """An image file (a link to nowhere if there is no content) and its label file, as a data set has them."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    file = folder / "images" / name
    if content is None:
        file.symlink_to(folder / "nowhere")
    else:
        file.write_bytes(content)
    box = " ".join(map(str, BOX))
    (folder / "labels" / f"{file.stem}.txt").write_text(f"{box}\n{'' if image_class is None else ONE_HOT[image_class]}")
    return file


def described(folder: Path, train: str = "images", val: str = "images") -> dict[str, Any]:
    return {
        "train": str(folder / train),
        "val": str(folder / val),
        "names": {0: "a", 1: "b"},
        "nc": 2,
        "classification_names": list(NAMES.values()),
    }


def load(source: Path | str, **options: Any) -> JointDataset:
    return create_joint_dataloader(
        str(source), SIZE, 4, 32, outputs=(class_output(NAMES),), num_box_classes=2, workers=0, **options
    )[1]


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("rect", [False, True], ids=["square", "rect"])
@pytest.mark.usefixtures("threads")
def test_every_kind_of_image_has_its_box_where_it_is(tmp_path: Path, name: str, rect: bool) -> None:
    place(tmp_path, name, GOOD[name], image_class=1)
    image, boxes, _, _, said = load(tmp_path / "images", rect=rect)[0]
    assert image.shape[0] == 3 and said == {"class": 1} and len(boxes) == 1
    height, width = image.shape[1:]
    cx, cy, w, h = (boxes[0, 2:] * boxes.new_tensor([width, height, width, height])).tolist()
    light = (image.float().mean(0) > 170).nonzero()  # grey padding is 114
    (top, left), (bottom, right) = light.min(0).values.tolist(), light.max(0).values.tolist()
    assert [left, top, right + 1, bottom + 1] == pytest.approx([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], abs=2)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged from INFO upwards, a line each."""
    lines: list[str] = []
    logger = upstream("utils.general").LOGGER
    handler = logging.Handler()
    handler.emit = lambda record: lines.extend(record.getMessage().splitlines())
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.mark.usefixtures("threads")
def test_corrupt_images_are_named_and_the_others_keep_their_class(tmp_path: Path, warnings: list[str]) -> None:
    for index, (name, (content, _)) in enumerate(CORRUPT.items()):
        place(tmp_path, name, content, image_class=0)
        place(tmp_path, f"{Path(name).stem}_good.png", encoded(PLAIN, "PNG"), image_class=index % 2)
    for _ in range(2):  # read, then from the caches
        check_labels(described(tmp_path), trained=("boxes", "class"))
        dataset = load(tmp_path / "images")
        expected = {f"{Path(name).stem}_good.png": index % 2 for index, name in enumerate(CORRUPT)}
        names = [Path(file).name for file in dataset.im_files]
        assert dict(zip(names, dataset.image_classes.tolist(), strict=True)) == expected
        for name, (_, reason) in CORRUPT.items():
            told = [line for line in warnings if f"{tmp_path / 'images' / name}: ignoring corrupt image/label: " in line]
            assert len(told) == 1 and told[0].startswith("WARNING") and reason in told[0]
        warnings.clear()


@pytest.mark.usefixtures("threads")
def test_only_corrupt_images(tmp_path: Path) -> None:
    place(tmp_path, "a.jpg", b"")
    with pytest.raises(DescriptionError, match=r"no image of `train` can be read, for instance: .*a\.jpg: ignoring corrupt"):
        check_labels(described(tmp_path))


@pytest.mark.usefixtures("threads")
def test_a_folder_that_cannot_be_written_to(tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated where the caches are saved: permissions do not stop the user that runs tests in a container."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    place(tmp_path, "a.png", encoded(PLAIN, "PNG"), image_class=1)
    monkeypatch.setattr(np, "save", refuse)
    monkeypatch.setattr(np, "savez", refuse)
    assert load(tmp_path / "images").image_classes.tolist() == [1]
    assert any(f"Cache directory {tmp_path} is not writeable" in line for line in warnings)
    assert any("labels.joint.cache cannot be written (Permission denied): every start" in line for line in warnings)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["images", "labels"]


@pytest.mark.usefixtures("threads")
def test_images_of_one_stem_share_their_label(tmp_path: Path) -> None:
    place(tmp_path, "x.jpg", GOOD["plain.jpg"], image_class=1)
    place(tmp_path, "x.png", GOOD["deep.png"], image_class=1)
    dataset = load(tmp_path / "images")
    assert len(dataset) == 2 and dataset.image_classes.tolist() == [1, 1] and [len(boxes) for boxes in dataset.labels] == [1, 1]


@pytest.mark.usefixtures("threads")
def test_label_without_image_and_image_without_label(tmp_path: Path, warnings: list[str]) -> None:
    place(tmp_path, "a.png", encoded(PLAIN, "PNG"))
    place(tmp_path, "b.png", encoded(PLAIN, "PNG"))
    (tmp_path / "labels/a.txt").unlink()
    for index in range(2):
        (tmp_path / f"labels/lone{index}.txt").write_text("0 1\n")
    (tmp_path / "labels/classes.txt").write_text("a\nb\n")
    for _ in range(2):
        check_labels({**described(tmp_path), "val": [str(tmp_path / "images")]})
        dataset = load(tmp_path / "images")
        assert dataset.image_classes.tolist() == [-1, 0] and [len(boxes) for boxes in dataset.labels] == [0, 1]
        lone = ", ".join(str(tmp_path / f"labels/lone{index}.txt") for index in range(2))
        for split in ("train", "val"):
            assert f"WARNING ⚠️ 2 label files of `{split}` without an image: {lone}" in warnings
        warnings.clear()
    (tmp_path / "list.txt").write_text(str(tmp_path / "images/b.png"))
    check_labels(described(tmp_path, "list.txt", "list.txt"))
    assert not any("without an image" in line for line in warnings), "a list may name a part of a folder"


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.usefixtures("threads")
def test_training_needs_a_box_and_a_class(tmp_path: Path, cached: bool) -> None:
    data = described(tmp_path)
    for index in range(3):
        file = place(tmp_path, f"{index}.png", encoded(PLAIN, "PNG"), image_class=None)
    if cached:
        load(data["train"])
    check_labels(data)
    check_labels(data, trained=("boxes",))
    with pytest.raises(DescriptionError, match="no image of `train` has a class: .* --balancer fixed --initial-weights 1 0"):
        check_labels(data, trained=("boxes", "class"))
    for label in (tmp_path / "labels").iterdir():
        label.write_text(ONE_HOT[0])
    if cached:
        load(data["train"])
    with pytest.raises(DescriptionError, match="no image of `train` has a box"):
        check_labels(data, trained=("boxes", "class"))
    if not cached:  # a label counts only with an image that can be read
        (tmp_path / "labels/2.txt").write_text("0 0.5 0.5 0.5 0.5\n0 1\n")
        file.write_bytes(b"")
        with pytest.raises(DescriptionError, match="no image of `train` has a box"):
            check_labels(data, trained=("boxes", "class"))


# Training ------------------------------------------------------------------------------------------------------------


def flags(data: Path, *more: str) -> list[str]:
    small = "--cfg yolov5n.yaml --hyp hyp.scratch-low.yaml --imgsz 64 --epochs 1 --batch-size 2 --workers 0 --noplots"
    return [*small.split(), "--weights", "", "--data", str(data), "--project", str(data.parent / "runs"), "--name", "r", *more]


def rewrite(folder: Path, split: str, change: Any) -> None:
    """Give every label file of the split (its box lines, its class line) anew."""
    for file in (folder / "labels" / split).glob("*.txt"):
        lines = [line for line in file.read_text().splitlines() if line]
        boxes, one_hot = [line for line in lines if "." in line], [line for line in lines if "." not in line]
        file.write_text("\n".join(change(boxes, one_hot)) + "\n")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_joint_dataset(tmp_path, images=4, size=SIZE, unlabelled=0)


NOT_TOLD_APART = "no two images of `val` differ in class"
LITTLE = {  # what is warned of
    "one image": ["`train` has no image of light, grey"],
    "one image class only": ["`train` has no image of dark, grey"],
    "val without class": [NOT_TOLD_APART],
    "val of one class": [NOT_TOLD_APART, "`val` has no image of dark, grey"],
    "val without box": [],
    "a corrupt image": [NOT_TOLD_APART],  # one is left
}


@pytest.mark.parametrize("case", LITTLE)
def test_training_on_little_ends_well(data: Path, case: str, warnings: list[str]) -> None:
    folder = data.parent
    if case == "one image":
        for index in range(1, 4):
            (folder / f"images/train/{index}.jpg").unlink()
            (folder / f"labels/train/{index}.txt").unlink()
    elif case == "one image class only":
        rewrite(folder, "train", lambda boxes, one_hot: [*boxes, "0 1 0"])
    elif case == "val without class":
        rewrite(folder, "val", lambda boxes, one_hot: boxes)
    elif case == "val of one class":
        rewrite(folder, "val", lambda boxes, one_hot: [*boxes, "0 1 0"])
    elif case == "val without box":
        rewrite(folder, "val", lambda boxes, one_hot: one_hot)
    else:
        (folder / "images/train/0.jpg").write_bytes(b"")
        (folder / "images/val/0.jpg").write_bytes(b"")
    random.seed(0)
    main(flags(data))
    run = folder / "runs/r"
    assert (run / "weights/best.pt").is_file() and (run / "joint_metrics.json").is_file() and (run / "report.html").is_file()
    assert "NaN" not in (run / "joint_metrics.json").read_text()
    assert all(any(told in line for line in warnings) for told in LITTLE[case]), warnings
    assert any(NOT_TOLD_APART in line for line in warnings) == (NOT_TOLD_APART in LITTLE[case])


@pytest.mark.parametrize(("classes", "share"), [([-1, -1], 0), ([1, 1], 0), ([0, 1], 0.25)])
def test_a_classification_that_cannot_fail_has_no_say_in_best_pt(classes: list[int], share: float) -> None:
    run = JointRun(parse_options(["--fitness-share", "0.25"]))
    run.outputs, run.figures = (class_output(["a", "b"]),), {"class": {"balanced_accuracy": 1.0}}
    run.datasets = {"val": SimpleNamespace(targets={"class": np.array(classes)})}
    detection = 0.1 * 0.5 + 0.9 * 0.3  # YOLOv5's own shares of the two mAPs
    assert run.fitness(np.array([[0, 0, 0.5, 0.3, 0, 0, 0]])) == pytest.approx((1 - share) * detection + share * 1)


@pytest.mark.usefixtures("threads")
def test_classes_without_a_label_and_names_of_one_class_are_told(tmp_path: Path, warnings: list[str]) -> None:
    place(tmp_path, "0.png", encoded(PLAIN, "PNG"), image_class=0)
    data = described(tmp_path) | {"names": {0: "box", 1: "disc"}}
    labels, classes = [np.array([[0, 0.5, 0.5, 0.1, 0.1]])], np.array([0])
    outputs, names = image_outputs(data), data["names"]
    warn_of_absent("train", labels, {"class": classes}, outputs, names)
    assert [line.removeprefix("WARNING ⚠️ ") for line in warnings] == [
        "`train` has no image of cold", "`train` has no box of disc"
    ]  # fmt: skip
    warn_of_absent("train", [np.zeros((0, 5))], {"class": np.array([-1])}, outputs, names)
    assert len(warnings) == 2, "that a task has no label at all is told elsewhere"
    (tmp_path / "labels/0.txt").write_text("0 0.5 0.5 0.1 0.1\n1\n")
    check_labels(data | {"classification_names": {0: "warm"}, "names": {0: "box"}})
    assert "`classification_names` has one class: every image is right by itself" in warnings[-1]


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        (lambda boxes, one_hot: boxes, [], "no image of `train` has a class"),
        (lambda boxes, one_hot: one_hot, [], "no image of `train` has a box"),
        (lambda boxes, one_hot: one_hot, ["--balancer", "fixed", "--initial-weights", "1", "0"], "no image of `train` has a box"),
    ],
)
def test_nothing_to_learn_is_one_error_before_any_folder(
    data: Path, change: Any, more: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    rewrite(data.parent, "train", change)
    with pytest.raises(SystemExit, match="1"):
        main(flags(data, *more))
    assert f"ERROR: {message}" in capsys.readouterr().err
    assert not (data.parent / "runs").exists()


def test_no_class_is_allowed_where_classification_is_off(data: Path) -> None:
    rewrite(data.parent, "train", lambda boxes, one_hot: boxes)
    main(flags(data, "--balancer", "fixed", "--initial-weights", "1", "0"))
    assert (data.parent / "runs/r/weights/best.pt").is_file()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_image_that_only_opencv_cannot_read(data: Path, workers: str, capsys: pytest.CaptureFixture) -> None:
    """Pillow's check does not decode; OpenCV does, in training."""
    (data.parent / "images/train/0.jpg").unlink()
    file = data.parent / "images/train/0.tif"
    file.write_bytes(encoded(DEEP.astype(np.float32), "TIFF")[:-500])
    with pytest.raises(SystemExit, match="1"):
        main(flags(data, "--workers", workers))
    error = capsys.readouterr().err.rpartition("ERROR: ")[2]
    assert error == f"{file} cannot be read by OpenCV: save it anew, as PNG or JPEG, or remove it\n"


@pytest.mark.parametrize(
    ("batch", "more", "reason", "left"),
    [
        ("2", [], "the loss is not finite: total", "the last good checkpoint is {last}"),
        ("6", [], "the weights are not finite after the epoch's last batch", "the last good checkpoint is {last}"),
        ("6", ["--noval"], "the loss is not finite: total", "there is no good checkpoint: the weights of the last one"),
        ("2", ["--epochs", "1"], "the loss is not finite: total", "there is no checkpoint yet"),
    ],
)
def test_divergence_stops_and_names_the_last_good_checkpoint(
    tmp_path: Path, batch: str, more: list[str], reason: str, left: str, capsys: pytest.CaptureFixture
) -> None:
    """The learning rate explodes in the second epoch: in its first batch of three, or in its only one; or in the first epoch."""
    data = write_joint_dataset(tmp_path, images=6, size=SIZE)
    hyp = yaml.safe_load(Path(upstream("utils.general").check_file("hyp.scratch-low.yaml")).read_text(errors="ignore"))
    broken = {"lr0": 1e30} if "--epochs" in more else {"lrf": 1e35}
    (data.parent / "hyp.yaml").write_text(yaml.safe_dump({**hyp, **broken}))
    with pytest.raises(SystemExit, match="1"):
        main(flags(data, "--hyp", str(data.parent / "hyp.yaml"), "--epochs", "3", "--batch-size", batch, *more))
    error = capsys.readouterr().err.rpartition("ERROR: ")[2]
    last = data.parent / "runs/r/weights/last.pt"
    assert error.startswith(reason) and left.format(last=last) in error and "Traceback" not in error
    if "loss" in reason:
        for part in ("detection", "box", "objectness", "class", "classification", "weights"):
            assert f"{part} " in error
    assert "images of the batch:" in error and str(data.parent / "images/train") in error
    if "the last good" in left:
        weights = read_checkpoint("resume", last)["model"].state_dict().values()
        assert all(torch.isfinite(value).all() for value in weights)
