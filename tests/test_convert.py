"""`convert`: each format, each source of the image's class, each oddity, the split, and that nothing is left half-written."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from gradnorm_plugin.convert.command import build_parser, convert, main, parse_options
from gradnorm_plugin.convert.image_files import SUFFIXES, ImageIndex, split_of_name
from gradnorm_plugin.convert.oddities import ConversionError, Kind
from gradnorm_plugin.convert.xml_formats import XmlError, parse_xml
from gradnorm_plugin.data.checking import check_labels
from gradnorm_plugin.labels import Box, LabelRecord, Polygon, read_label_file, write_label_file
from gradnorm_plugin.pictures import DICOM_SUFFIXES
from gradnorm_plugin.upstream.checkout import REPOSITORY
from gradnorm_plugin.upstream.gateway import upstream

WIDTH, HEIGHT = 40, 20
RED, BLUE = ("red", 4, 2, 12, 10), ("blue", 20, 10, 40, 20)
ONE_HOT = (("a", "1 0"), ("b", "0 1"))
AS_BOXES = {"red": Box(1, 0.2, 0.3, 0.2, 0.4), "blue": Box(0, 0.75, 0.75, 0.5, 0.5)}  # names in alphabetical order
_shade = itertools.count()


def draw(file: Path, width: int = WIDTH, height: int = HEIGHT, **how: object) -> Path:
    """An image that no other equals, saved by Pillow."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(next(_shade)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, **how)
    return file


def write_xml(file: Path, *boxes: tuple, size: tuple[int, int] = (WIDTH, HEIGHT), filename: str = "", more: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    objects = "\n".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in boxes
    )
    file.write_text(
        f"<annotation><filename>{filename}</filename>\n<size><width>{size[0]}</width><height>{size[1]}</height></size>\n"
        f"{objects}\n{more}</annotation>\n"
    )
    return file


def write_voc(source: Path, classes: dict[str, str], *boxes: tuple, lists: dict[str, list[str]] | None = None) -> Path:
    """A VOC source with an image for each stem, the boxes in each, and a CSV file of the classes; returns the CSV."""
    for stem in classes:
        draw(source / "JPEGImages" / f"{stem}.png")
        write_xml(source / "Annotations" / f"{stem}.xml", *(boxes or (RED, BLUE)), filename=f"{stem}.png")
    for split, stems in (lists or {}).items():
        (source / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (source / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
    return write_csv(source / "classes.csv", classes.items())


def write_csv(file: Path, rows, header: tuple[str, str] = ("Image", "Category")) -> Path:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def coco_image(number: int, name: str, **more: object) -> dict[str, object]:
    return {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT, **more}


def coco_box(image: int, category: int, *box: float, **more: object) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": list(box), "iscrowd": 0, **more}


def write_coco(file: Path, images: list, annotations: list) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"id": 3, "name": "blue"}, {"id": 7, "name": "red"}]
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


Run = Callable[..., dict[str, list[str]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Convert tmp_path/source to tmp_path/out with flags; the oddities by title, each as `where: detail`."""
    monkeypatch.chdir(tmp_path)

    def run(*flags: object, source: str = "source") -> dict[str, list[str]]:
        convert(parse_options([source, "out", "--overwrite", *map(str, flags)]))
        found: dict[str, list[str]] = {}
        for row in csv.DictReader((tmp_path / "out" / "conversion.csv").open(encoding="utf-8")):
            found.setdefault(row["found"], []).append(f"{row['where']}: {row['detail']}")
        return found

    return run


def records(out: Path) -> dict[str, LabelRecord]:
    """Every label file of a result, as `split/stem`, read by our reader; each has its image and none is without one."""
    described = yaml.safe_load((out / "data.yaml").read_text())
    sizes = len(described["names"]), len(described["classification_names"])
    found = {f"{file.parent.name}/{file.stem}": read_label_file(file, *sizes) for file in (out / "labels").glob("*/*.txt")}
    assert set(found) == {f"{file.parent.name}/{file.stem}" for file in (out / "images").glob("*/*")}
    return found


def by_stem(tmp_path: Path) -> dict[str, LabelRecord]:
    return {name.split("/")[1]: record for name, record in records(tmp_path / "out").items()}


def names(out: Path, key: str = "classification_names") -> list[str]:
    return list(yaml.safe_load((out / "data.yaml").read_text())[key].values())


def close(found: Box, expected: Box) -> bool:
    return found.class_index == expected.class_index and np.allclose(found[1:], expected[1:], atol=1e-12)


# Formats


def test_voc_with_csv_and_its_own_split(run, tmp_path):
    classes = {"Blood_1": "x", "Blood_2": "y", "Blood_3": "x", "Blood_4": "y"}
    table = write_voc(tmp_path / "source", classes, lists={"train": ["Blood_1", "Blood_2"], "val": ["Blood_3", "Blood_4"]})
    assert run("--classes-csv", table) == {}
    found = records(tmp_path / "out")
    assert {name: record.image_class for name, record in found.items()} == {
        "train/Blood_1": 0, "train/Blood_2": 1, "val/Blood_3": 0, "val/Blood_4": 1,
    }  # fmt: skip
    for record in found.values():
        assert [close(*pair) for pair in zip(record.boxes, (AS_BOXES["red"], AS_BOXES["blue"]), strict=True)] == [True, True]
    assert "Nothing odd" in (tmp_path / "out" / "conversion.md").read_text()


def test_upstream_and_our_checks_accept_the_result(run, tmp_path):
    table = write_voc(tmp_path / "source", {f"{n}": "xy"[n % 2] for n in range(10)})
    run("--classes-csv", table, "--test-share", 0.2)
    data = upstream("utils.general").check_dataset(str(tmp_path / "out" / "data.yaml"))
    assert data["names"] == {0: "blue", 1: "red"}
    found = check_labels(data, ("train", "val", "test"))
    assert {split: sorted(scan.targets["class"]) for split, scan in found.items()} == {
        "train": [0, 0, 0, 1, 1, 1],
        "val": [0, 1],
        "test": [0, 1],
    }
    loaded = upstream("utils.dataloaders").LoadImagesAndLabels(data["train"], 32)
    assert all(len(labels) == 2 for labels in loaded.labels) and len(loaded.labels) == 6


@pytest.mark.parametrize("layout", ["annotations", "folders"])
def test_coco_with_a_file_for_each_split_and_classes_in_it(run, tmp_path, layout):
    for split, offset in (("train", 0), ("val", 2)):
        folder = tmp_path / "source" / f"{split}2017"
        images = [coco_image(n, f"{n}.png", category=["x", "y"][n % 2]) for n in (1, 2)]
        for image in images:  # the same names in both splits
            draw(folder / image["file_name"])
        file = {"annotations": f"annotations/instances_{split}2017.json", "folders": f"{split}2017/_annotations.coco.json"}[
            layout
        ]
        write_coco(tmp_path / "source" / file, images, [coco_box(1, 7, 4, 2, 8, 8), coco_box(2, 3, 20, 10, 20, 10 - offset)])
    if layout == "annotations":  # of the real COCO; other tasks of the same images
        (tmp_path / "source" / "annotations" / "captions_train2017.json").write_text("{}")
        write_coco(tmp_path / "source" / "annotations" / "person_keypoints_train2017.json", [coco_image(1, "1.png")], [])
    assert set(run()) == {"images of one name"}
    found = records(tmp_path / "out")
    assert set(found) == {f"{split}/{split}2017-{n}-png" for split in ("train", "val") for n in (1, 2)}
    first = found["val/val2017-1-png"]
    assert close(first.boxes[0], AS_BOXES["red"]) and len(first.boxes) == 1 and first.image_class == 1
    assert found["val/val2017-2-png"].boxes[0].h == 0.4 and names(tmp_path / "out", "names") == ["blue", "red"]


def test_coco_key_crowds_polygons(run, tmp_path):
    triangle = [4, 2, 12, 2, 12, 10]
    images = [coco_image(n, f"{n}.png", view=["a", "b"][n % 2]) for n in range(4)]
    for image in images:
        draw(tmp_path / "source" / "images" / image["file_name"])
    boxes = [coco_box(n, 7, 4, 2, 8, 8, segmentation=[triangle]) for n in range(4)]
    boxes += [coco_box(0, 3, 20, 10, 20, 10, segmentation=[triangle, triangle]), coco_box(1, 3, 0, 0, 9, 9, iscrowd=1)]
    write_coco(tmp_path / "source" / "all.json", images, boxes)
    assert run("--json-key", "view", "--val-share", 0.5)["crowd region of COCO"] == ["source/all.json: 1.png: annotations[5]: "]
    assert all(not record.polygons for record in records(tmp_path / "out").values())
    found = run("--json-key", "view", "--val-share", 0.5, "--polygons")
    assert len(found["object without an outline of one part"]) == 1
    by_stem = {name.split("/")[1]: record for name, record in records(tmp_path / "out").items()}
    assert by_stem["1"].polygons == (Polygon(1, ((0.1, 0.1), (0.3, 0.1), (0.3, 0.5))),)
    assert by_stem["0"].polygons[1] == Polygon(0, ((0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0)))


def yolo_source(folder: Path, texts: dict[str, str], **description: object) -> None:
    for name, text in texts.items():
        draw(folder / "images" / f"{name}.png")
        file = folder / "labels" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (folder / "data.yaml").write_text(yaml.safe_dump({"names": ["red", "blue"], **description}))


def test_lines_of_a_yolo_list_that_name_no_image_are_told(run, tmp_path):
    texts = {f"{split}/{name}": f"0 0.5 0.5 0.2 0.2\n{one_hot}" for split in ("train", "val") for name, one_hot in ONE_HOT}
    yolo_source(tmp_path / "source", texts, train="train.txt", val="val.txt", classification_names=["x", "y"])
    for split, more in (("train", "images/train/gone.png\n"), ("val", "")):
        listed = "".join(f"./images/{split}/{name}.png\n" for name, _ in ONE_HOT)
        (tmp_path / "source" / f"{split}.txt").write_text(listed + more)
    found = run("--min-images", 1)
    assert found["line of a split that fits no single image"] == ["source/train.txt:3: images/train/gone.png"]
    assert len(records(tmp_path / "out")) == len(texts)
    (tmp_path / "source/val.txt").write_bytes(b"images/val/\xe9.png\n")
    with pytest.raises(ConversionError, match="val.txt: cannot be read as a list of images: not UTF-8 text"):
        run("--min-images", 1)


def test_yolo_keeps_every_digit_and_the_one_hot_lines(run, tmp_path):
    line = "1 0.123456789012345 0.2 0.1 0.3\n"
    yolo_source(
        tmp_path / "source",
        {"train/a": "\ufeff" + line + "\n0 1\n", "train/b": line + "1 0", "train/c": "1 0\r0 1", "val/a2": "0 1", "val/b2": line},
        train="../images/train",
        val="images/val",
        classification_names={0: "y", 1: "x"},
    )
    found = run("--min-images", 1)
    assert found.pop("annotation that cannot be read") == ["source/labels/train/c.txt:1: " + found_reason(tmp_path)]
    assert set(found) == {"image without a class", "annotation without objects", "class that a split has no example of"}
    box = Box(1, 0.123456789012345, 0.2, 0.1, 0.3)
    assert records(tmp_path / "out") == {
        "train/a": LabelRecord((box,), (), 1),
        "train/b": LabelRecord((box,), (), 0),
        "val/a2": LabelRecord((), (), 1),
        "val/b2": LabelRecord((box,), (), None),
    }
    assert names(tmp_path / "out") == ["y", "x"]


def found_reason(tmp_path: Path) -> str:
    """What our reader says of a line of two values."""
    (tmp_path / "line.txt").write_text("1 0\n0 0.5 0.5 0.5 0.5")
    with pytest.raises(Exception) as error:
        read_label_file(tmp_path / "line.txt", 2, 0)
    return error.value.reason


def test_yolo_boxes_that_our_reader_refuses(run, tmp_path):
    texts = {
        "train/a": "0 0.9 0.5 0.4 0.2\n1 0.5 0.5 0 0.2\n0 1\n",  # reaches out, has no area, and a one-hot line
        "train/b": "0 1.1 0.5 0.4 0.2\n9 0.5 0.5 0.1 0.1\n1 0",  # centre outside, unknown class
        "train/c": "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.3 0.1 0.3 0.3\n1 0",  # a box and a polygon
        "train/d": "0 0.5 0.5 0.2\n1 0",  # a value is missing
        "val/e": "0 0.99999 0.5 0.00004 0.5\n0 1",  # outside by less than half a pixel: rounding
        "val/f": "0 0.5 nan 0.2 0.2",
    }
    yolo_source(tmp_path / "source", texts, classification_names=["x", "y"])
    draw(tmp_path / "source" / "images" / "train" / "g.png")
    (tmp_path / "source" / "labels" / "train" / "h.txt").write_text("")
    found = run("--min-images", 1)
    assert [where.split(": ")[0] for where in found["annotation that cannot be read"]] == [
        "source/labels/train/d.txt:1",
        "source/labels/val/f.txt:1",
    ]
    assert [where.split(": ")[0] for where in found["box that reaches outside the image"]] == [
        "source/labels/train/a.txt:1",
        "source/labels/train/b.txt:1",
    ]
    assert found["box without area"] == ["source/labels/train/a.txt:2: blue from (20, 8) to (20, 12)"]
    assert found["box of a class that is not in names"] == ["source/labels/train/b.txt:2: class 9, names has 2"]
    assert found["annotation without an image"] == ["source/labels/train/h.txt: "]
    assert found["image without annotation"] == ["images/train/g.png: "]
    result = records(tmp_path / "out")
    assert close(result["train/a"].boxes[0], Box(0, 0.85, 0.5, 0.3, 0.2)) and result["train/a"].image_class == 1
    assert close(result["train/b"].boxes[0], Box(0, 0.95, 0.5, 0.1, 0.2))
    assert result["train/c"].polygons[0].points[0] == (0.4, 0.4) and len(result["train/c"].polygons) == 2
    assert result["val/e"].boxes == (Box(0, 0.99999, 0.5, 0.00004, 0.5),)
    assert "train/d" not in result and result["train/g"] == LabelRecord()


def test_labels_beside_the_images_with_classes_txt(run, tmp_path):
    for index in range(6):
        draw(tmp_path / "source" / "ab"[index % 2] / f"{index}.png").with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "source" / "classes.txt").write_text("cell\n")
    assert run("--classes-from", "folder", "--val-share", 0.34) == {}
    assert names(tmp_path / "out") == ["a", "b"] and names(tmp_path / "out", "names") == ["cell"]


def test_the_three_formats_give_the_same(run, tmp_path):
    classes = {f"i{n}": "xyz"[n % 3] for n in range(9)}
    lists = {"train": list(classes)[:6], "val": list(classes)[6:]}
    table = write_voc(tmp_path / "source", classes, lists=lists)
    run("--classes-csv", table)
    expected = records(tmp_path / "out")
    images = [coco_image(n, f"{stem}.png", label=name) for n, (stem, name) in enumerate(classes.items())]
    boxes = [coco_box(n, category, *box) for n in range(9) for category, *box in ((7, 4, 2, 8, 8), (3, 20, 10, 20, 10))]
    for split in lists:
        kept = [image for image in images if Path(image["file_name"]).stem in lists[split]]
        ids = {image["id"] for image in kept}
        write_coco(tmp_path / "coco" / f"{split}.json", kept, [box for box in boxes if box["image_id"] in ids])
    shutil.copytree(tmp_path / "source" / "JPEGImages", tmp_path / "coco" / "images")
    shutil.move(tmp_path / "out", tmp_path / "yolo")
    assert run(source="coco") == {} and records(tmp_path / "out") == expected
    assert run(source="yolo") == {} and records(tmp_path / "out") == expected


# The image's class


def test_csv_rows_match_by_path_name_stem_or_number():
    files = [
        Path("r") / name for name in ("Blood_00007.png", "Blood_00008.png", "8.png", "a/x.png", "b/x.png", "c_3.png", "d_03.png")
    ]
    index = ImageIndex(Path("r"), files)

    def found(key: str) -> list[str]:
        return [index.key(file) for file in index.find(key, numbers=True)]

    assert found("Blood_00007") == found("Blood_00007.png") == found("Blood_00007.jpg") == found("7") == ["Blood_00007.png"]
    assert found("8") == ["8.png"]  # the stem comes before the number
    assert found("a/x.png") == found("/old/place/a/x.png") == found("a\\x.png") == ["a/x.png"]
    assert found("x") == ["a/x.png", "b/x.png"] and found("3") == ["c_3.png", "d_03.png"]
    assert found("Blood") == found("9") == found("") == []
    assert index.find("7") == []


def test_csv_oddities(run, tmp_path):
    write_voc(tmp_path / "source", {f"s_{n}": "" for n in range(9)})
    rows = [
        ("s_0", "x"),
        ("1", "x, x"),
        ("s_2.png", "x;y"),
        ("3", ""),
        ("s_4", "rare"),
        ("5", "y"),
        ("5", "y"),
        ("6", "y"),
        ("77", "x"),
    ]
    rows += [("7", "x"), ("", "x")]
    table = write_csv(tmp_path / "t.csv", rows, header=("id", "label"))
    found = run("--classes-csv", table)
    assert found["image with one class named several times"] == ["s_1.png: x, x", "s_5.png: y, y"]
    assert found["image with several classes"] == ["s_2.png: x, y"]
    assert found["image without a class"] == ["s_3.png: ", "s_8.png: "]
    assert found["image of a class that is too rare"] == ["s_4.png: rare, 1 of at least 2 images"]
    assert found["image with several CSV rows"] == ["t.csv:8: s_5.png"]
    assert found["CSV row that fits no image"] == ["t.csv:10: 77", "t.csv:12: no image"]
    result = {name.split("/")[1]: record for name, record in records(tmp_path / "out").items()}
    assert names(tmp_path / "out") == ["x", "y"]
    assert {stem: record.image_class for stem, record in result.items() if record.image_class is not None} == {
        "s_0": 0, "s_1": 0, "s_5": 1, "s_6": 1, "s_7": 0,
    }  # fmt: skip
    assert all(len(record.boxes) == 2 for record in result.values())


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"_(PLAX|PSAX)_", ["PLAX", "PSAX", "PLAX", "PSAX"]),
        (r"^(?:[a-z]+)_(?P<class>[A-Z]+)_", ["PLAX", "PSAX", "PLAX", "PSAX"]),
        (r"PLAX|PSAX", ["PLAX", "PSAX", "PLAX", "PSAX"]),
        (r"^([a-z]+)/", ["one", "one", "two", "two"]),
    ],
)
def test_classes_from_a_pattern_in_file_names(run, tmp_path, pattern, expected):
    stems = ["one/us_PLAX_1", "one/us_PSAX_2", "two/us_PLAX_3", "two/us_PSAX_4"]
    write_voc(tmp_path / "source", dict.fromkeys([*stems, "Other"], ""))
    found = run("--class-pattern", pattern)
    known = names(tmp_path / "out")
    assert known == sorted(set(expected))
    read = by_stem(tmp_path)
    assert [known[read[stem[4:]].image_class] for stem in stems] == expected
    assert found["image without a class"] == ["Other.png: "] and read["Other"].image_class is None


def test_box_classes_are_renamed_and_merged(run, tmp_path):
    table = write_voc(tmp_path / "source", {"a": "x", "b": "y"}, RED, BLUE, ("Rot", 1, 1, 4, 4))
    flags = ("--classes-csv", table, "--min-images", 1, "--val-share", 0.5)
    run(*flags, "--rename", "red=rouge", "Rot=rouge", "--rename", "blue=red")
    assert names(tmp_path / "out", "names") == ["rouge", "red"], "the place of the first of them; renamed all at once"
    assert [box.class_index for box in by_stem(tmp_path)["a"].boxes] == [0, 1, 0]
    run(*flags, "--rename", "red=rouge", "--names", "rouge")
    assert names(tmp_path / "out", "names") == ["rouge"]
    with pytest.raises(
        ConversionError, match=r"--rename bleu=b: there is no box class bleu \(there are Rot, blue, red\); did you mean blue\?"
    ):
        run(*flags, "--rename", "bleu=b")


def test_image_class_chooses_and_orders_and_may_have_commas(run, tmp_path):
    table = write_voc(tmp_path / "source", {f"{n}": ["b, c", "a", "A", "z"][n % 4] for n in range(12)})
    found = run("--classes-csv", table, "--image-class", "b, c", "a", "A", "typo")
    assert found["image class that no image has alone"] == ["typo: "]
    assert names(tmp_path / "out") == ["b, c", "a", "A"]
    assert len(found["image of a class that --image-class does not name"]) == 3
    assert found["image classes that differ only in upper and lower case"] == ["a (3), A (3): "]


def test_a_column_of_file_names_counts_before_one_of_numbers(run, tmp_path):
    write_voc(tmp_path / "source", {f"scan_{n}": "" for n in range(4)})
    (tmp_path / "t.csv").write_text("id,file name,class\n" + "".join(f"{n},scan_{3 - n}.png,{'xy'[n % 2]}\n" for n in range(4)))
    run("--classes-csv", "t.csv", "--val-share", 0.5)
    assert {stem: record.image_class for stem, record in by_stem(tmp_path).items()} == {f"scan_{3 - n}": n % 2 for n in range(4)}


def test_csv_columns_by_name_and_semicolons(run, tmp_path):
    write_voc(tmp_path / "source", {"a": "", "b": "", "c": "", "d": ""})
    (tmp_path / "t.csv").write_bytes("\ufeffNr;Befund;Bild\n1;x;a\n2;y;b\n3;x;c\n4;y;d\n".encode())
    assert run("--classes-csv", "t.csv", "--csv-columns", "bild", "Befund", "--val-share", 0.5) == {}
    with pytest.raises(
        ConversionError, match=r"t.csv:1: no column for the image among Nr, Befund, Bild: name both by --csv-columns"
    ):
        run("--classes-csv", "t.csv")


def test_classes_from_folders_keep_the_split_folders(run, tmp_path):
    for n, (split, name) in enumerate(itertools.product(("train", "valid"), ("x", "y"))):
        draw(tmp_path / "source" / split / name / f"{n}.png")
        write_xml(tmp_path / "source" / split / name / f"{n}.xml", RED)
    assert run("--classes-from", "folder") == {}
    assert {name: record.image_class for name, record in records(tmp_path / "out").items()} == {
        "train/0": 0, "train/1": 1, "val/2": 0, "val/3": 1,
    }  # fmt: skip


# Boxes and images


def test_odd_boxes(run, tmp_path):
    boxes = [
        RED,
        RED,
        ("red", 5, 5, 5, 5),
        ("blue", -4, 10, 20, 30),
        ("blue", 50, 5, 60, 9),
        ("blue", 12, 10, 4, 2),
        ("green", 1, 1, 9, 9),
        ("red", "many", 1, 9, 9),
        ("", 1, 1, 9, 9),
    ]
    table = write_voc(tmp_path / "source", {"a": "x", "b": "x"})
    more = "<object><name>red</name></object>\n<object><name>red</name><difficult>1</difficult>" + (
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object>"
    )
    write_xml(tmp_path / "source" / "Annotations" / "a.xml", *boxes, more=more)
    found = run("--classes-csv", table, "--names", "red", "blue", "--val-share", 0.5)
    xml = "source/Annotations/a.xml"
    assert found["box given twice"] == [f"{xml}:4: red"]
    assert found["box without area"] == [f"{xml}:5: red from (5, 5) to (5, 5)"]
    assert found["box that reaches outside the image"] == [f"{xml}:6: blue, by 10 pixels"]
    assert found["box wholly outside the image"] == [f"{xml}:7: blue from (50, 5) to (60, 9)"]
    assert found["box with exchanged corners"] == [f"{xml}:8: blue from (12, 10) to (4, 2)"]
    assert found["box of a class that is not in names"] == [f"{xml}:9: green"]
    assert found["object without a usable class or box"] == [
        f"{xml}:10: a <bndbox> without four numbers",
        f"{xml}:11: no <name>",
        f"{xml}:12: no <bndbox>",
    ]
    assert found["box marked difficult"] == [f"{xml}:13: red"]
    result = {name.split("/")[1]: record for name, record in records(tmp_path / "out").items()}["a"]
    expected = [
        Box(0, 0.2, 0.3, 0.2, 0.4),
        Box(1, 0.25, 0.75, 0.5, 0.5),
        Box(1, 0.2, 0.3, 0.2, 0.4),
        Box(0, 1.5 / 40, 1.5 / 20, 1 / 40, 1 / 20),
    ]
    assert [close(*pair) for pair in zip(result.boxes, expected, strict=True)] == [True] * 4
    found = run("--classes-csv", table, "--names", "red", "blue", "--val-share", 0.5, "--drop-difficult")
    assert found["box marked as difficult"] == [f"{xml}:13: red"]


def test_odd_images_and_annotations(run, tmp_path):
    source = tmp_path / "source"
    table = write_voc(source, {f"{n}": "xy"[n % 2] for n in range(14)})
    draw(source / "JPEGImages" / "alone.png")
    write_xml(source / "Annotations" / "lost.xml", RED)
    write_xml(source / "Annotations" / "again" / "0.xml", RED)
    write_xml(source / "Annotations" / "1.xml", RED, size=(80, 40))
    write_xml(source / "Annotations" / "2.xml")
    (source / "Annotations" / "3.xml").write_text("<annotation>\n<object>\n</annotation>")
    (source / "Annotations" / "4.xml").write_text("<html></html>")
    (source / "JPEGImages" / "5.png").write_bytes(b"no image")
    whole = (source / "JPEGImages" / "6.png").read_bytes()
    (source / "JPEGImages" / "6.png").write_bytes(whole[: len(whole) // 2])
    draw(source / "JPEGImages" / "7.png", 9, 30)
    shutil.copy(source / "JPEGImages" / "8.png", source / "JPEGImages" / "9.png")
    draw(source / "JPEGImages" / "10.jpg")
    draw(source / "JPEGImages" / "._11.png")
    cut = draw(source / "JPEGImages" / "cut.jpg", 100, 100)
    cut.write_bytes(cut.read_bytes()[:2000])
    found = run("--classes-csv", table)
    assert found["image without annotation"] == ["10.jpg: ", "alone.png: "]
    assert found["annotation without an image"] == ["source/Annotations/lost.xml: no image lost.*"]
    assert found["id given twice"] == ["source/Annotations/again/0.xml: 0.png has source/Annotations/0.xml already"]
    assert found["annotated size differs from the image"] == ["source/Annotations/1.xml: 80 x 40, the image has 40 x 20"]
    assert found["annotation without objects"] == ["source/Annotations/2.xml: "]
    assert found["annotation that cannot be read"] == [
        "source/Annotations/3.xml:3: not well-formed XML: mismatched tag",
        "source/Annotations/4.xml:1: <html> where Pascal VOC has <annotation>",
    ]
    assert [where.split(": ")[0] for where in found["image that cannot be read"]] == ["5.png", "6.png", "7.png", "cut.jpg"]
    assert "truncated" in found["image that cannot be read"][3], "older OpenCV would fill it up with grey"
    assert found["picture that occurs twice, byte for byte"] in (["9.png: train: 8.png"], ["9.png: val: 8.png"])
    assert found["images of one name"] == ["10.jpg: 10-jpg.jpg", "10.png: 10-png.png"]
    result = {name.split("/")[1]: record for name, record in records(tmp_path / "out").items()}
    assert set(result) == {"0", "1", "2", "8", "9", "10-jpg", "10-png", "11", "12", "13", "alone"}
    assert close(result["1"].boxes[0], AS_BOXES["red"]._replace(class_index=1)), "the image's own size counts"
    assert result["2"].boxes == result["alone"].boxes == ()
    text = (tmp_path / "out" / "conversion.md").read_text(encoding="utf-8")
    assert "| image that cannot be read | 4 | left out |" in text


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("declared", ["stored", "upright"])
def test_exif_rotation_boxes_sit_on_the_object_as_training_sees_it(run, tmp_path, orientation, declared):
    """A white rectangle on black, stored in some orientation; its box is annotated in the stored or the upright picture."""
    stored = np.zeros((HEIGHT * 4, WIDTH * 4, 3), np.uint8)
    stored[8:40, 16:48] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "source" / "JPEGImages" / "a.jpg"
    file.parent.mkdir(parents=True)
    Image.fromarray(stored).save(file, exif=exif, quality=95)
    draw(file.with_name("b.png"))
    write_xml(tmp_path / "source" / "Annotations" / "b.xml", RED)
    upright = cv2.imread(str(file))
    turned = orientation >= 5
    assert upright.shape[:2] == (stored.shape[1::-1] if turned else stored.shape[:2]), "OpenCV obeys EXIF"
    ys, xs = np.nonzero(upright[..., 0] > 128)
    if declared == "stored" and turned:
        box, size = (16, 8, 48, 40), stored.shape[1::-1]
    else:
        box, size = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), upright.shape[1::-1]
    write_xml(tmp_path / "source" / "Annotations" / "a.xml", ("red", *box), size=size)
    table = write_csv(tmp_path / "t.csv", [("a", "x"), ("b", "y")])
    found = run("--classes-csv", table, "--val-share", 0.5, "--min-images", 1)
    found.pop("class that a split has no example of")
    title = "image with EXIF rotation" + (", annotated unrotated" if declared == "stored" and turned else "")
    assert list(found) == ([title] if orientation > 1 else [])
    result = {name.split("/")[1]: record for name, record in records(tmp_path / "out").items()}["a"].boxes[0]
    height, width = upright.shape[:2]
    expected = (xs.min() + xs.max() + 1) / 2 / width, (ys.min() + ys.max() + 1) / 2 / height
    assert np.allclose(result[1:3], expected) and np.allclose(result[3:], (32 / width, 32 / height))


def test_coco_oddities(run, tmp_path):
    for n in range(6):
        draw(tmp_path / "source" / "images" / f"{n}.png")
    images = [coco_image(n, f"{n}.png", image_class="xy"[n % 2]) for n in range(5)]
    images += [coco_image(3, "3.png"), coco_image(9, "1.png"), coco_image(10, "gone.png"), {"id": True, "file_name": "x"}, None]
    images[4]["width"] = 400
    boxes = [coco_box(n, 7, 4, 2, 8, 8) for n in range(5)]
    boxes += [coco_box(77, 7, 1, 1, 2, 2), coco_box(0, 5, 1, 1, 2, 2), coco_box(1, 7, 1, 1, 0, 5), coco_box(2, 7, 1, 1, 5), "x"]
    write_coco(tmp_path / "source" / "all.json", images, boxes)
    (tmp_path / "source" / "package.json").write_text("{}")
    found = run()
    there = "source/all.json: "
    assert found["image listed twice"] == [
        f"{there}3.png: {there}3.png is the same image",
        f"{there}1.png: {there}1.png is the same image",
    ]
    assert found["annotation without an image"] == [
        there + "gone.png: no such image",
        there + "images[8]: an entry without id or file_name",
        there + "images[9]: an entry without id or file_name",
        there + "annotations[5]: image_id 77 is no image's id",
        there + "annotations[9]: no image_id",
    ]
    assert found["box of a class that is not in names"] == [
        there + "0.png: annotations[6]: category_id 5 is in no entry of categories"
    ]
    assert found["box without area"] == [there + "1.png: annotations[7]: red 0 x 5"]
    assert found["object without a usable class or box"] == [
        there + "2.png: annotations[8]: no bbox of four numbers, and no outline"
    ]
    assert found["image that the annotation file does not name"] == ["images/5.png: "]
    assert found["annotated size differs from the image"] == [there + "4.png: 400 x 20, the image has 40 x 20"]
    assert found["JSON file of something else"] == ["source/package.json: "]
    assert len(records(tmp_path / "out")) == 5


def test_every_kind_of_oddity_has_its_own_title():
    assert len({kind.title for kind in Kind}) == len(Kind) == len(Kind.__members__)


def test_image_formats_are_those_of_upstream():
    assert {*upstream("utils.dataloaders").IMG_FORMATS, *DICOM_SUFFIXES} == SUFFIXES


# What people write and plainly mean, and what leaves nothing

BOXES = [[4, 2, 8, 8], [20, 10, 20, 10], [24, 4, 12, 12], [2, 8, 30, 10], [30, 1, 5, 15], [15, 9, 20, 10]]


def around(x: float, y: float, width: float, height: float) -> list[float]:
    """The outline of a box."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def coco_content(**more: object) -> dict[str, list]:
    return {
        "images": [coco_image(n, f"p {n}.png", image_class="xy"[n % 2]) for n in range(6)],
        "annotations": [coco_box(n, 1 + n % 2, *box, segmentation=[around(*box)]) for n, box in enumerate(BOXES)],
        "categories": [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}],
        **more,
    }


@pytest.fixture
def coco(run, tmp_path) -> Callable[..., tuple[dict[str, list[str]], dict[str, LabelRecord]]]:
    """Convert `coco_content()` after a change to it: the oddities, and each image's record by stem."""
    for n in range(6):
        draw(tmp_path / "source" / "images" / "a" / f"p {n}.png")

    def convert_changed(change: Callable[[dict], object], *flags: object):
        content = coco_content()
        change(content)
        (tmp_path / "source" / "all.json").write_text(json.dumps(content))
        found = run("--val-share", 0.34, *flags)
        return found, by_stem(tmp_path)

    return convert_changed


def each(key: str, change: Callable[[dict], object]) -> Callable[[dict], None]:
    return lambda content: [change(entry) for entry in content[key]] and None


def mask(text: bool) -> Callable[[dict], None]:
    """Boxes as run lengths down the columns of 40 x 20 pixels, plain or in COCO's compressed letters."""

    def letters(runs: list[int]) -> str:
        found = ""
        for place, run in enumerate(runs):
            value = run - runs[place - 2] if place > 2 else run
            more = True
            while more:
                bits, value = value & 31, value >> 5
                more = value != (-1 if bits & 16 else 0)
                found += chr((bits | (32 if more else 0)) + 48)
        return found

    def change(entry: dict) -> None:
        x, y, width, height = entry.pop("bbox")
        runs = [x * HEIGHT + y, *[height, HEIGHT - height] * (width - 1), height]
        entry["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": letters(runs) if text else runs}

    return each("annotations", change)


def as_corners(entry: dict) -> None:
    x, y, width, height = entry["bbox"]
    entry["bbox"] = [x, y, x + width, y + height]


def as_shares(entry: dict) -> None:
    x, y, width, height = entry["bbox"]
    entry["bbox"] = [x / WIDTH, y / HEIGHT, width / WIDTH, height / HEIGHT]


def without_outline(change: Callable[[dict], object]) -> Callable[[dict], None]:
    return each("annotations", lambda entry: (entry.pop("segmentation"), change(entry)))


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        (each("categories", lambda entry: entry.update(id=str(entry["id"]))), None),
        (each("annotations", lambda entry: entry.update(image_id=f" {entry['image_id']}")), None),
        (each("annotations", lambda entry: entry.update(image_id=float(entry["image_id"]))), None),
        (each("annotations", lambda entry: entry.update(category_id=f"{entry['category_id']}.0")), None),
        (each("images", lambda entry: entry.update(id=f"{entry['id']:03}")), None),
        (each("annotations", lambda entry: entry.update(image_id=f"p {entry['image_id']}.png")), None),
        (each("annotations", lambda entry: entry.update(bbox=[f"{value:.1f}" for value in entry["bbox"]])), None),
        (each("annotations", lambda entry: entry.update(bbox=str(entry["bbox"]))), None),
        (each("annotations", lambda entry: entry.update(bbox=[entry["bbox"]])), None),
        (each("images", lambda entry: (entry.pop("width"), entry.pop("height"))), None),
        (each("images", lambda entry: entry.update(file_name=f"C:\\data\\a\\{entry['file_name']}")), None),
        (each("images", lambda entry: entry.update(file_name=f"/old/place/{entry['file_name']}")), None),
        (each("images", lambda entry: entry.update(file_name=entry["file_name"].replace(" ", "%20"))), None),
        (each("images", lambda entry: entry.update(file_name=f"https://h.org/a%2Fp%20{entry['id']}.png?key=1")), None),
        (each("images", lambda entry: entry.update(file_name=f"http://[h/{entry['file_name']}")), None),
        (each("images", lambda entry: entry.update(file_name=f"A/{entry['file_name'].upper()}")), None),
        (each("images", lambda entry: entry.update(file_name=entry["file_name"].replace(".png", ".jpg"))), None),
        (each("annotations", lambda entry: entry.pop("bbox")), "object with an outline but no usable box"),
        (each("annotations", lambda entry: entry.update(bbox=[0, 0, 0, 0])), "object with an outline but no usable box"),
        (each("annotations", lambda entry: (entry.pop("bbox"), entry.update(segmentation=entry["segmentation"][0]))),
         "object with an outline but no usable box"),
        (mask(text=False), "object with an outline but no usable box"),
        (mask(text=True), "object with an outline but no usable box"),
        (each("annotations", as_corners), "boxes in other terms than the format's"),
        (without_outline(as_corners), "boxes in other terms than the format's"),
        (each("annotations", as_shares), "boxes in other terms than the format's"),
        (without_outline(as_shares), "boxes in other terms than the format's"),
        (without_outline(lambda entry: (as_corners(entry), as_shares(entry))), "boxes in other terms than the format's"),
        (lambda content: content["images"].append(coco_image(77, "p 3.png")), "image listed twice"),
    ],
)  # fmt: skip
def test_coco_as_people_write_it_gives_the_same_boxes(coco, change, noted):
    found, result = coco(change)
    assert list(found) == ([noted] if noted else [])
    for n, (x, y, width, height) in enumerate(BOXES):
        expected = Box(n % 2, (x + width / 2) / WIDTH, (y + height / 2) / HEIGHT, width / WIDTH, height / HEIGHT)
        assert result[f"p {n}"].image_class == n % 2
        assert [close(box, expected) for box in result[f"p {n}"].boxes] == [True]


def test_boxes_says_what_they_are_where_nothing_tells(coco):
    small = without_outline(lambda entry: entry.update(bbox=[2, 2, 4, 6]))
    assert coco(small)[0]["boxes that fit as two corners as well"] == [
        "source/all.json: 6 boxes; --boxes xywh or --boxes xyxy decides"
    ]
    as_size, as_corners_ = coco(small)[1]["p 0"].boxes[0], coco(small, "--boxes", "xyxy")[1]["p 0"].boxes[0]
    assert close(as_size, Box(0, 4 / 40, 5 / 20, 4 / 40, 6 / 20)) and close(as_corners_, Box(0, 3 / 40, 4 / 20, 2 / 40, 4 / 20))
    found, result = coco(small, "--boxes", "cxcywh")
    assert found["boxes in other terms than the format's"] == ["source/all.json: 6 boxes read as cxcywh in pixels"]
    assert close(result["p 0"].boxes[0], Box(0, 2 / 40, 2.5 / 20, 4 / 40, 5 / 20)), "it reaches above the picture by 1 pixel"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content["annotations"].clear(), "no box is left to convert: the annotations have no objects"),
        (each("annotations", lambda entry: entry.update(iscrowd="1")), "crowd region of COCO (6): source/all.json: p 0.png: "),
        (each("annotations", lambda entry: entry.update(category_id=9)), "category_id 9 is in no entry of categories"),
        (each("annotations", lambda entry: entry.update(image_id="nine")), "image_id nine is no image's id"),
        (without_outline(lambda entry: entry.pop("bbox")), "no bbox of four numbers, and no outline"),
        (without_outline(lambda entry: entry.update(bbox=[9, 9, 0, 5])), "box without area (6): "),
        (without_outline(lambda entry: entry.update(bbox=[900, 9, 10, 5])), "box wholly outside the image (6): "),
        (without_outline(lambda entry: entry.update(bbox=[20, 10, -5, -5])), "box without area (6): "),
        (each("images", lambda entry: entry.update(file_name="gone" + entry["file_name"])), "gonep 0.png: no such image"),
        (each("images", lambda entry: entry.pop("image_class")), "the annotations name no class of any image: name a source"),
    ],
)  # fmt: skip
def test_a_conversion_that_keeps_nothing_fails_and_says_why(coco, tmp_path, change, reason):
    with pytest.raises(ConversionError, match=re.escape(reason)) as error:
        coco(change)
    assert "\n" not in str(error.value) and sorted(file.name for file in tmp_path.iterdir()) == ["source"]


def test_boxes_of_an_id_that_two_images_have_go_to_neither(coco):
    found, result = coco(lambda content: content["images"][1].update(id=0))
    assert set(result) == {"p 2", "p 3", "p 4", "p 5"}
    assert found["annotation that fits several images"] == ["source/all.json: p 1.png: image 0: p 0.png, p 1.png"]
    assert found["annotation without an image"] == [
        "source/all.json: p 0.png: annotations[0]: its image cannot be used",
        "source/all.json: annotations[1]: image_id 1 is no image's id",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "big5", "cp1252", "gb18030"])
def test_voc_in_the_encoding_it_declares(run, tmp_path, encoding):
    table = write_voc(tmp_path / "source", {"a": "x", "b": "y", "c": "x", "d": "y"})
    name = "é" if encoding == "cp1252" else "紅"
    for file in (tmp_path / "source" / "Annotations").iterdir():
        text = file.read_text().replace("red", name)
        file.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>\n{text}'.encode(encoding))
    assert "annotation that cannot be read" not in run("--classes-csv", table)
    assert names(tmp_path / "out", "names") == ["blue", name]


def test_voc_as_people_write_it(run, tmp_path):
    """No size, a size of 0, shares of the picture, upper-case tags, several names or boxes in one object, entities."""
    table = write_voc(tmp_path / "source", {f"{n}": "xy"[n % 2] for n in range(8)})
    folder = tmp_path / "source" / "Annotations"
    run("--classes-csv", table)
    expected = by_stem(tmp_path)
    whole = (folder / "1.xml").read_text()
    (folder / "1.xml").write_text(re.sub("<size>.*</size>", "", whole))
    (folder / "2.xml").write_text(re.sub("<size>.*</size>", "<size><width>0</width><height>0</height></size>", whole))
    (folder / "3.xml").write_text(re.sub("</?[a-z]+>", lambda tag: tag.group().upper(), whole))
    (folder / "4.xml").write_text(re.sub(r">(\d+)<", r">\1.0<", whole))
    (folder / "5.xml").write_text(whole.replace("<name>red</name>", "<name>red</name><name>blue</name>"))
    bomb = '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;&b;">]>\n'
    (folder / "6.xml").write_text(bomb + whole)
    found = run("--classes-csv", table)
    found.pop("class that a split has no example of", None)
    result = by_stem(tmp_path)
    assert {stem: record.boxes for stem, record in result.items() if stem not in "5"} == {
        stem: record.boxes for stem, record in expected.items() if stem not in "56"
    }
    assert len(result["5"].boxes) == 1
    assert found == {
        "annotation that cannot be read": ["source/Annotations/6.xml:1: declares an entity, which no annotation needs"],
        "object without a usable class or box": ["source/Annotations/5.xml:3: several names: blue, red"],
    }
    for n in range(8):
        write_xml(folder / f"{n}.xml", ("red", 0.1, 0.1, 0.3, 0.5), ("blue", 0.5, 0.5, 1, 1))
    assert list(run("--classes-csv", table)) == ["boxes in other terms than the format's"]
    for record in by_stem(tmp_path).values():
        assert close(record.boxes[0], AS_BOXES["red"]) and close(record.boxes[1], AS_BOXES["blue"])


@pytest.mark.parametrize("tree_of", ["{name}/images", "{name}/train/JPEGImages", "images/{name}", "train/images/{name}/img"])
def test_classes_from_folders_pass_by_those_that_are_no_class(run, tmp_path, tree_of):
    for n in range(8):
        folder = tmp_path / "source" / tree_of.format(name=["psax", "plax"][n % 2])
        write_xml(draw(folder / f"{n}.png").with_suffix(".xml"), RED)
    run("--classes-from", "folder", "--val-share", 0.25)
    assert names(tmp_path / "out") == ["plax", "psax"]
    assert {int(stem): record.image_class for stem, record in by_stem(tmp_path).items()} == {n: 1 - n % 2 for n in range(8)}


def test_a_single_image_class_is_said_aloud_and_no_flag_in_use_is_advised(run, tmp_path, capsys):
    for n in range(4):
        write_xml(draw(tmp_path / "source" / "a" / f"{n}.png").with_suffix(".xml"), RED)
    main(["source", "out", "--classes-from", "folder"])
    assert "\nWARNING: only one image class: a: 4 images" in capsys.readouterr().out
    shutil.move(tmp_path / "source" / "a", tmp_path / "source" / "images")
    with pytest.raises(ConversionError, match="no image class is left") as error:
        run("--classes-from", "folder")
    assert "--classes-csv FILE" in str(error.value) and "--classes-from" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "flags"),
    [
        ("image,view\n0,é\n1,007\n2,é\n3,007\n".encode(), ()),
        ("image;plane\r\n0; é \r\n1;007\r\n2;é\r\n3;007\r\n".encode("utf-16"), ()),
        ("image\tDiagnosis\n0\té\n1\t007\n2\té\n3\t007\n".encode("utf-16-le"), ()),
        ("\ufeffsep=;\nFile Name;Label\n0.png;é\n1.PNG;007\nold/2.jpg;é\nJPEGImages\\3.png;007\n".encode(), ()),
        ("image|class\n0|é\n1|007\n2|é\n3|007\n".encode("cp1252"), ("--csv-encoding", "cp1252")),
        ('\n"image, file";"class"\n"0";"é"\n1;"007";\n2;é\n3;007\n'.encode(), ("--csv-columns", "image, file", "class")),
    ],
    ids=["view", "plane_utf16", "diagnosis_utf16_without_mark", "sep_and_paths", "cp1252", "comma_in_header"],
)
def test_class_tables_as_people_save_them(run, tmp_path, content, flags):
    write_voc(tmp_path / "source", dict.fromkeys("0123", ""))
    (tmp_path / "t.csv").write_bytes(content)
    assert run("--classes-csv", "t.csv", "--val-share", 0.5, *flags) == {}
    assert names(tmp_path / "out") == ["007", "é"]
    assert {stem: record.image_class for stem, record in by_stem(tmp_path).items()} == {
        "0": 1, "1": 0, "2": 1, "3": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        (b"image,class\n0,x\n1,y\n0.png,y\n", (), "t.csv:2 and 4: 0.png is x in one row and y in the other: remove the wrong"),
        (b"image,wish\n0,x\n", (), "t.csv:1: no column for the class among image, wish: name both by --csv-columns IMAGE CLASS"),
        (b"image,wish\n0,x\n", ("--csv-columns", "image", "hope"), "among image, wish: correct --csv-columns"),
        (b"image,view,grade\n0,x,1\n", (), "t.csv:1: 2 columns may be the class, view, grade: name both by --csv-columns"),
        ("image,class\n0,紅\n".encode("big5"), (), "t.csv:2: not UTF-8 text: save it as CSV in UTF-8, or name its encoding by"),
        ("image,class\n0,紅\n".encode("big5"), ("--csv-encoding", "ascii"), "t.csv:2: not ASCII text: save it as CSV in UTF-8"),
        (b"image,class\n7,x\n8,y\n", (), "KEY. CSV row that fits no image (2): t.csv:2: 7"),
        (b"", (), "t.csv:1: no column for the image among none"),
    ],
    ids=["contradiction", "unknown", "wrong_flag", "two_candidates", "big5", "wrong_encoding", "no_match", "empty"],
)  # fmt: skip
def test_class_tables_that_cannot_be_right(run, tmp_path, content, flags, message):
    write_voc(tmp_path / "source", dict.fromkeys("0123", ""))
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ConversionError, match=re.escape(message)):
        run("--classes-csv", "t.csv", *flags)
    assert not (tmp_path / "out").exists()


def test_a_picture_in_two_classes_or_two_splits_is_named(run, tmp_path):
    table = write_voc(tmp_path / "source", {"a": "x", "b": "y", "c": "x", "d": "y"})
    folder = tmp_path / "source" / "JPEGImages"
    shutil.copy(folder / "a.png", folder / "b.png")
    shutil.copy(folder / "c.png", folder / "d.png")
    lists = []
    for split, stem in (("train", "a\nb"), ("val", "c"), ("test", "d")):
        lists.append(tmp_path / f"{split}.txt")
        lists[-1].write_text(stem)
    found = run("--classes-csv", table, "--split", *lists)
    assert found["picture that occurs twice, in different classes"] == ["b.png: a.png", "d.png: c.png"]
    assert found["picture of val that is in test too"] == ["d.png: val: c.png"]
    assert found["picture that occurs twice, byte for byte"] == ["b.png: train: a.png"]


@pytest.mark.parametrize(
    "layout", ["imgs/{}.png labels/{}.txt", "{}.png {}.txt", "x/{}.png Labels/y/{}.TXT", "images/{}.png labels/{}.txt"]
)
@pytest.mark.parametrize("listing", ["classes.txt", "obj.names", "notes.json"])
def test_yolo_is_told_and_its_labels_found_wherever_they_lie(run, tmp_path, layout, listing):
    source = tmp_path / "source"
    for n in range(4):
        picture, label = (source / part.format(n) for part in layout.split())
        draw(picture)
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("1 0.5 0.5 0.5 0.5\n")
    as_json = json.dumps({"categories": [{"id": 0, "name": "red"}, {"id": 1, "name": "blue"}], "info": {}})
    (source / listing).write_text(as_json if listing == "notes.json" else "red\nblue\n")
    table = write_csv(tmp_path / "t.csv", [(n, "xy"[n % 2]) for n in range(4)])
    found = run("--classes-csv", table, "--val-share", 0.5)
    assert set(found) == {"class that a split has no example of"} and names(tmp_path / "out", "names") == ["red", "blue"]
    assert all(record.boxes == (Box(1, 0.5, 0.5, 0.5, 0.5),) for record in records(tmp_path / "out").values())


def test_names_of_a_yaml_are_text_as_they_are_written(run, tmp_path):
    yolo_source(tmp_path / "source", {f"{n}": f"{n % 3} 0.5 0.5 0.5 0.5\n{['1 0', '0 1'][n % 2]}" for n in range(6)})
    (tmp_path / "source" / "data.yaml").write_text("names: [no, 007, 1.0]\nclassification_names: {0: on, 1: null}\n")
    run("--val-share", 0.5)
    assert names(tmp_path / "out", "names") == ["no", "007", "1.0"] and names(tmp_path / "out") == ["on", "null"]


def test_names_that_a_reader_may_take_for_code_end_harmless(run, tmp_path):
    classes = {"=cmd": "=1+1", "@a": "<b>x|y</b>", "c": "=1+1", "d": "<b>x|y</b>", "-e": "../../up"}
    table = write_voc(tmp_path / "source", classes)
    (tmp_path / "source" / "JPEGImages" / "=cmd.png").write_bytes(b"no picture")
    run("--classes-csv", table, "--image-class", "=1+1", "<b>x|y</b>", "../../up", "--min-images", 1, "--val-share", 0.5)
    rows = list(csv.reader((tmp_path / "out" / "conversion.csv").open()))
    assert any(row[2] == "'=cmd.png" for row in rows) and not any(
        cell.startswith(("=", "@", "-")) for row in rows for cell in row
    )
    text = (tmp_path / "out" / "conversion.md").read_text()
    assert "&lt;b&gt;x\\|y&lt;/b&gt;" in text and "<b>" not in text
    assert names(tmp_path / "out") == ["=1+1", "<b>x|y</b>", "../../up"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "source"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes in folders, and its links need a privilege")
def test_links_out_of_the_source_are_read_and_named_and_a_pipe_does_not_hang(run, tmp_path):
    table = write_voc(tmp_path / "source", {"a": "x", "b": "y", "c": "x", "d": "y"})
    folder = tmp_path / "source" / "JPEGImages"
    outside = draw(tmp_path / "elsewhere" / "z.png")
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(outside)
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    before = outside.read_bytes()
    found = run("--classes-csv", table, "--min-images", 1)
    assert found["image that is a link to a place outside the source"] == [f"a.png: {outside}"]
    assert [case.split(": ")[0] for case in found["image that cannot be read"]] == ["b.png"]
    copy = next((tmp_path / "out" / "images").glob("*/a.png"))
    assert not copy.is_symlink() and copy.read_bytes() == before == outside.read_bytes()


# Split


def split_of(out: Path) -> dict[str, str]:
    return {file.stem: file.parent.name for file in (out / "images").glob("*/*")}


def test_a_drawn_split_is_by_class_and_depends_on_the_seed_alone(run, tmp_path):
    classes = {f"{n:03}": "a" if n < 50 else "b" if n < 80 else "c" if n < 90 else "" for n in range(100)}
    table = write_voc(tmp_path / "source", classes)
    for copy in ("001", "002", "003"):
        shutil.copy(tmp_path / "source" / "JPEGImages" / "000.png", tmp_path / "source" / "JPEGImages" / f"{copy}.png")
    flags = ("--classes-csv", table, "--val-share", 0.2, "--test-share", 0.1)
    found = run(*flags)
    assert set(found) == {"image without a class", "picture that occurs twice, byte for byte"}
    first = split_of(tmp_path / "out")
    assert len(first) == 100 and Counter(first.values())["test"] in range(9, 15)
    assert len({first[stem] for stem in ("000", "001", "002", "003")}) == 1, "copies of one picture stay together"
    val = Counter(classes[stem] for stem, split in first.items() if split == "val")
    assert val["b"] == 6 and val["c"] == 2 and val[""] == 2 and val["a"] in range(8, 14)
    run(*flags)
    assert split_of(tmp_path / "out") == first
    run(*flags, "--seed", 1)
    assert split_of(tmp_path / "out") != first


@pytest.mark.parametrize("by", ["column", "pattern", "folder"])
def test_groups_stay_together_and_classes_are_shared_out(run, tmp_path, by):
    """24 patients of one to six pictures, three classes: no patient in two splits, every class near its share."""
    rng = np.random.default_rng(3)
    patient = [number for number in range(24) for _ in range(rng.integers(1, 7))]
    folder = "p{0:02}/" if by == "folder" else ""
    name = [f"{folder}p{{0:02}}_{n:03}".format(number) for n, number in enumerate(patient)]
    classes = [("abc"[number % 3], number) for number in patient]
    rows = [(stem, image_class, f"P {number}") for stem, (image_class, number) in zip(name, classes, strict=True)]
    write_voc(tmp_path / "source", {stem: image_class for stem, image_class, _ in rows})
    table = write_csv(tmp_path / "t.csv", rows, ("Image", "Class", "Patient ID"))
    how = {"column": ("--group", "patient_id"), "pattern": ("--group-pattern", "^(p[0-9]+)_")}
    flags = how.get(by, ("--group-pattern", "^[^/]+"))
    flags = ("--classes-csv", table, *flags, "--val-share", 0.25, "--test-share", 0.15)
    found = run(*flags)
    assert not set(found) & {"group in several splits", "image without a group"}
    first = {stem[-7:]: split for stem, split in split_of(tmp_path / "out").items()}
    parts: dict[str, set[str]] = {}
    for stem, split in first.items():
        parts.setdefault(stem[:3], set()).add(split)
    assert len(parts) == 24 and all(len(splits) == 1 for splits in parts.values())
    total = Counter(image_class for image_class, _ in classes)
    for split, share in (("val", 0.25), ("test", 0.15)):
        there = Counter(classes[int(stem[4:])][0] for stem, at in first.items() if at == split)
        assert all(abs(there[image_class] - share * total[image_class]) <= 2 for image_class in "abc"), (split, there, total)
    run(*flags)
    assert {stem[-7:]: split for stem, split in split_of(tmp_path / "out").items()} == first, "the same for a seed"


def test_groups_of_lists_are_checked_and_lone_images_go_where_they_may(run, tmp_path, capsys):
    table = write_voc(tmp_path / "source", {**{f"p{n // 2}_{n}": "xy"[n % 2] for n in range(8)}, "alone": "x"})
    shutil.copy(tmp_path / "source" / "JPEGImages" / "p0_0.png", tmp_path / "source" / "JPEGImages" / "p1_2.png")
    found = run("--classes-csv", table, "--group-pattern", "^(p[0-9])_")
    assert found["image without a group"] == ["alone.png: "]
    split = split_of(tmp_path / "out")
    assert len({split[stem] for stem in ("p0_0", "p0_1", "p1_2", "p1_3")}) == 1, "a copy ties its groups together"
    (tmp_path / "train.txt").write_text("p0_0\np0_1\np1_2\np2_4")
    (tmp_path / "val.txt").write_text("p1_3\np2_5\np3_6\np3_7\nalone")
    found = run("--classes-csv", table, "--group-pattern", "^(p[0-9])_", "--split", "train.txt", "val.txt")
    assert found["group in several splits"] == ["p1: train 1, val 1", "p2: train 1, val 1"]
    for pattern, message in (
        ("^q(.)", "gives no image a group (alone.png"),
        ("^.", "2 groups are too few for train and val"),
    ):
        with pytest.raises(ConversionError, match=re.escape(message)):
            run("--classes-csv", table, "--group-pattern", pattern, "--test-share", 0.2)
    rows = [("p0_0", "x", "A"), ("p1_2", "y", "B"), ("p1_2", "y", "C")]
    write_csv(tmp_path / "t.csv", rows, ("Image", "Class", "Patient"))
    with pytest.raises(ConversionError, match=r"t.csv:3 and 4: p1_2.png is of the group B and of C: remove the wrong row"):
        run("--classes-csv", "t.csv", "--group", "Patient", "--min-images", 1)
    with pytest.raises(ConversionError, match=r"t.csv:1: no column for the group `Clip` among Image, Class, Patient"):
        run("--classes-csv", "t.csv", "--group", "Clip", "--min-images", 1)


def test_pictures_that_are_nearly_in_two_splits_are_named(run, tmp_path):
    table = write_voc(tmp_path / "source", {"a": "x", "b": "y", "c": "x", "d": "y", "e": "x"})
    folder = tmp_path / "source" / "JPEGImages"
    for file in folder.iterdir():  # as blurred as photographs are
        Image.fromarray(cv2.GaussianBlur(cv2.resize(cv2.imread(str(file)), (160, 80)), (15, 15), 0)).save(file)
    with Image.open(folder / "a.png") as picture:
        picture.resize((80, 40)).save(folder / "c.png")
        picture.save(folder / "d.webp", quality=60)
    (folder / "d.png").unlink()
    for split, stems in (("train", "a b"), ("val", "c e"), ("test", "d")):
        (tmp_path / f"{split}.txt").write_text(stems.replace(" ", "\n"))
    found = run("--classes-csv", table, "--split", "train.txt", "val.txt", "test.txt", "--min-images", 1)
    title = "picture nearly identical to one of another split"
    assert found[title][0] == "c.png: train: a.png" and len(found[title]) == 2
    assert re.fullmatch(r"d\.webp: (train: a|val: c)\.png, of another class", found[title][1])


def test_small_classes_are_drawn_together(run, tmp_path):
    classes = {f"{n}": name for n, name in enumerate(["a"] * 10 + ["b", "c", "d", "e", "f"])}
    table = write_voc(tmp_path / "source", classes)
    found = run("--classes-csv", table, "--min-images", 1)
    counts = Counter(split_of(tmp_path / "out").values())
    assert counts == {"train": 12, "val": 3}
    val = Counter(classes[stem] for stem, split in split_of(tmp_path / "out").items() if split == "val")
    assert val["a"] == 2
    assert found["class that a split has no example of"].count("val: no images of b") + val["b"] == 1


def test_lists_give_the_split(run, tmp_path):
    table = write_voc(tmp_path / "source", {f"i_{n}": "x" for n in range(6)})
    (tmp_path / "train.txt").write_text("i_0\n./JPEGImages/i_1.png\n\ni_2.png\nnone\n")
    (tmp_path / "val.txt").write_text("\ufeffi_2\ni_3\r\n", encoding="utf-8")
    shutil.copy(tmp_path / "source" / "JPEGImages" / "i_0.png", tmp_path / "source" / "JPEGImages" / "i_3.png")
    found = run("--classes-csv", table, "--split", "train.txt", "val.txt")
    assert split_of(tmp_path / "out") == {"i_0": "train", "i_1": "train", "i_2": "val", "i_3": "val"}
    assert found["line of a split that fits no single image"] == ["train.txt:5: none"]
    assert found["image in several splits"] == ["i_2.png: train, val"]
    assert found["image in no split"] == ["i_4.png: ", "i_5.png: "]
    assert found["picture of val or test that is in train too"] == ["i_3.png: train: i_0.png"]


def test_a_missing_val_is_drawn_from_train(run, tmp_path):
    table = write_voc(tmp_path / "source", {f"{n}": "xy"[n % 2] for n in range(12)})
    (tmp_path / "source" / "ImageSets").mkdir()
    (tmp_path / "source" / "ImageSets" / "train.txt").write_text("\n".join(map(str, range(10))))
    (tmp_path / "source" / "ImageSets" / "test.txt").write_text("10\n11\n")
    found = run("--classes-csv", table)
    assert found["source has no val split"] == ["source: 2 of 10 images, seed 0"]
    assert Counter(split_of(tmp_path / "out").values()) == {"train": 8, "val": 2, "test": 2}
    assert list(yaml.safe_load((tmp_path / "out" / "data.yaml").read_text()))[:4] == ["path", "train", "val", "test"]


@pytest.mark.parametrize(
    ("name", "split"),
    [("train", "train"), ("Training", "train"), ("val2017", "val"), ("valid", "val"), ("validation", "val"), ("test", "test"),
     ("trainer", None), ("evaluation", None), ("testes", None)],
)  # fmt: skip
def test_names_of_splits(name, split):
    assert split_of_name(name) == split


# Writing


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("link", [None, "symlink", "hardlink"])
def test_images_are_copied_or_linked_never_moved(run, tmp_path, link):
    table = write_voc(tmp_path / "source", {"a": "x", "b": "x", "c": "x"})
    whole = draw(tmp_path / "source" / "JPEGImages" / "d.jpg", quality=90)
    whole.write_bytes(whole.read_bytes() + b"\0")  # as YOLOv5 would rewrite it
    before = tree(tmp_path / "source")
    found = run("--classes-csv", table, *(["--link", link] if link else []))
    assert tree(tmp_path / "source") == before
    assert found["JPEG without its end mark"] == ["d.jpg: "]
    for file in (tmp_path / "out" / "images").glob("*/*"):
        original = tmp_path / "source" / "JPEGImages" / file.name
        linked = link if file.name != "d.jpg" else None
        assert file.read_bytes() == original.read_bytes()
        assert file.is_symlink() == (linked == "symlink") and os.path.samefile(file, original) == (linked is not None)
    upstream("utils.dataloaders").LoadImagesAndLabels(str(tmp_path / "out" / "images" / "train"), 32)
    upstream("utils.dataloaders").LoadImagesAndLabels(str(tmp_path / "out" / "images" / "val"), 32)
    assert tree(tmp_path / "source") == before, "YOLOv5 mended its copy"


def test_an_output_is_replaced_only_on_demand_and_only_if_convert_wrote_it(run, tmp_path):
    table = write_voc(tmp_path / "source", {"a": "x", "b": "x"})
    line = ["source", "out", "--classes-csv", str(table)]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("years of work")
    for flags, message in (([], "out exists already: .* add --overwrite"), (["--overwrite"], "was not written by convert")):
        with pytest.raises(ConversionError, match=message):
            convert(parse_options([*line, *flags]))
    assert tree(tmp_path / "out") == {"thesis.doc": b"years of work"}
    shutil.rmtree(tmp_path / "out")
    convert(parse_options(line))
    (tmp_path / "out" / "labels" / "train" / "old.txt").write_text("")
    convert(parse_options([*line, "--overwrite"]))
    assert not (tmp_path / "out" / "labels" / "train" / "old.txt").exists()


@pytest.mark.parametrize("out", ["source", "source/out", "."])
def test_the_output_may_not_share_a_place_with_the_source(run, tmp_path, out):
    table = write_voc(tmp_path / "source", {"a": "x", "b": "x"})
    before = tree(tmp_path)
    with pytest.raises(ConversionError, match="one within the other"):
        convert(parse_options(["source", out, "--overwrite", "--classes-csv", str(table)]))
    assert tree(tmp_path) == before


def test_a_failure_in_the_middle_leaves_the_old_result_and_nothing_else(run, tmp_path, monkeypatch, capsys):
    table = write_voc(tmp_path / "source", {"a": "x", "b": "x", "c": "x"})
    run("--classes-csv", table)
    before = tree(tmp_path)
    rename = os.rename

    def fail_once(name: str, real: Callable[..., None], when: Callable[..., bool]) -> None:
        def full(*arguments: object, **more: object) -> None:
            if when(*arguments):
                raise OSError(28, "No space left on device", "x.png")
            real(*arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(SystemExit) as end:
                main(["source", "out", "--overwrite", "--classes-csv", str(table)])
        assert end.value.code == 1
        assert capsys.readouterr().err == "ERROR: x.png: No space left on device: nothing was converted\n"
        assert tree(tmp_path) == before

    fail_once("gradnorm_plugin.convert.write.write_label_file", write_label_file, lambda path, *_: path.stem == "b")
    left = tmp_path / ".out.x1.part"  # by a run that was killed between the two renames
    left.mkdir()
    (tmp_path / "out").rename(left / "old")
    before = {name.replace(".out.x1.part/old", "out"): content for name, content in before.items()}
    fail_once("gradnorm_plugin.convert.write.os.rename", rename, lambda source, target: source.name == "new")


TERMINATED = """
import os, signal
from gradnorm_plugin.cli import main
from gradnorm_plugin.convert import write

write.write_label_file = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
main(["convert", "source", "out", "--min-images", "1"])
"""


def test_a_conversion_that_is_terminated_leaves_nothing(tmp_path):
    texts = {f"{split}/{name}": one_hot for split in ("train", "val") for name, one_hot in ONE_HOT}
    yolo_source(tmp_path / "source", {"train/c": "0 0.5 0.5 0.2 0.2\n1 0", **texts}, classification_names=["x", "y"])
    ended = subprocess.run([sys.executable, "-c", TERMINATED], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, [path.name for path in tmp_path.iterdir()]) == (143, ["source"]), ended.stderr


# Errors


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere", "out"], "nowhere is not there: name an existing file or folder"),
        (["source", "out"], "the annotations name no class of any image: name a source of the classes: --classes-csv FILE"),
        (["source", "out", "--classes-csv", "no.csv"], "no.csv is not there"),
        (
            ["source", "out", "--classes-csv", "short.csv"],
            "short.csv:3: more values than columns: put a value that holds commas in quotes",
        ),
        (["source", "out", "--classes-csv", "latin.csv"], "latin.csv:2: not UTF-8 text: save it as CSV in UTF-8"),
        (
            ["source", "out", "--classes-csv", "t.csv", "--min-images", "9"],
            "no image class is left; images that have just one class: x 4;",
        ),
        (["source", "out", "--classes-csv", "t.csv", "--image-class", "z"], "no image class is left"),
        (["source", "out", "--classes-csv", "t.csv", "--split", "e.txt", "e.txt"], "the split leaves no image to train on"),
        (["source", "out", "--classes-csv", "t.csv", "--val-share", "0.9"], "4 different images are too few to take 4 of them"),
        (["source", "out", "--format", "coco"], "source has no COCO file (JSON with the lists images, annotations, categories)"),
        (["source", "out", "--format", "yolo"], "source has no data yaml and no classes.txt: name the box classes by --names"),
        (["bad.json", "out", "--images", "source"], "bad.json:2: not JSON (Expecting value): correct it"),
        (["bad.yaml", "out", "--images", "source"], "bad.yaml:2: not YAML"),
        (["empty", "out"], "empty has no images (bmp, dcm, dicom, dng, jpeg"),
        (["bare", "out"], "bare has no .xml, .json or labels/*.txt: say --format"),
        (["mixed", "out"], "mixed has annotations of several formats (coco, voc): say --format"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "_".join(value),
)
def test_one_line_says_what_is_wrong_and_nothing_is_written(run, tmp_path, capsys, flags, message):
    write_voc(tmp_path / "source", {f"{n}": "x" for n in range(4)})
    shutil.move(tmp_path / "source" / "classes.csv", tmp_path / "t.csv")
    (tmp_path / "short.csv").write_text("Image,Category\n1,x\n2,x,y\n")
    (tmp_path / "latin.csv").write_bytes(b"Image,Category\n1,\xe9\n")
    (tmp_path / "bad.json").write_text('{"images":\n]')
    (tmp_path / "bad.yaml").write_text("names:\n  [a, b: }")
    (tmp_path / "e.txt").write_text("")
    (tmp_path / "empty").mkdir()
    draw(tmp_path / "bare" / "a.png")
    draw(tmp_path / "mixed" / "a.png")
    write_xml(tmp_path / "mixed" / "a.xml", RED)
    write_coco(tmp_path / "mixed" / "a.json", [], [])
    before = tree(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(flags)
    error = capsys.readouterr().err
    assert end.value.code == 1 and error.startswith("ERROR: ") and message in error and error.count("\n") == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--split", "a"], "two or three files"),
        (["--split", "a", "b", "--val-share", "0.2"], "leave one out"),
        (["--val-share", "0.6", "--test-share", "0.4"], "must leave something"),
        (["--val-share", "nan"], "must leave something"),
        (["--min-images", "0"], "at least 1"),
        (["--names", "a", "a"], "different names"),
        (["--classes-from", "csv"], "needs the file"),
        (["--classes-from", "folder", "--classes-csv", "f"], "two sources"),
        (["--seed", "-1"], "--seed must be from 0"),
        (["--group", "Patient"], "--group names a column, and there is no table"),
        (["--class-pattern", "(a)(b)"], "'(a)(b)' has 2 groups: name the one that counts"),
        (["--group-pattern", "(a"], "'(a' is no regular expression: missing )"),
        (["--class-pattern", "a", "--classes-csv", "f"], "--classes-csv and --class-pattern are two sources of the class"),
        (["--rename", "a"], "'a': write OLD=NEW"),
        (["--rename", "a=b", "a=c"], "--rename gives a two names"),
    ],
)
def test_wrong_flags_are_status_2(capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        parse_options(["source", "out", *flags])
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_the_manual_names_every_flag_and_every_oddity():
    manual = (REPOSITORY / "docs" / "convert.md").read_text(encoding="utf-8")
    flags = {flag for action in build_parser()._actions for flag in action.option_strings if flag.startswith("--")}
    assert set(re.findall(r"--[a-z][a-z-]+", manual)) >= flags - {"--help"}
    assert set(re.findall(r"--[a-z][a-z-]+", manual)) <= flags | {"--data"}
    missing = [kind.title for kind in Kind if f"| {kind.title} | {kind.action} |" not in manual]
    assert not missing


def test_xml_entities_are_refused_and_lines_kept():
    with pytest.raises(XmlError, match="declares an entity") as error:
        parse_xml(b'<?xml version="1.0"?>\n<!DOCTYPE a [\n<!ENTITY b "bb">]>\n<a>&b;</a>')
    assert error.value.line == 3
    root = parse_xml(b"<a>\n  <b> one </b>\n\n  <b>two</b></a>")
    assert [(child.line, child.text) for child in root.all("b")] == [(2, " one "), (4, "two")] and root.get("b") == "one"
    with pytest.raises(XmlError, match="100 elements within each other"):
        parse_xml(b"<a>" * 5000)


def fuzz_folder(tmp_path_factory) -> Path:
    """A folder with a small sound source in it."""
    base = tmp_path_factory.getbasetemp() / "fuzz"
    source = base / "source"
    if not source.exists():
        for n in range(4):
            draw(source / "images" / f"{n}.png")
            write_xml(source / "Annotations" / f"{n}.xml", RED)
            (source / "labels").mkdir(exist_ok=True)
            (source / "labels" / f"{n}.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0\n")
        write_csv(base / "t.csv", [(n, "x") for n in range(4)])
    return base


def fuzzed(tmp_path_factory, file: str, content: bytes, *flags: str) -> bool:
    """Convert a small sound source of which one file has any content: it ends well (True), or with one clean error."""
    base = fuzz_folder(tmp_path_factory)
    source = base / "source"
    target = base / file
    before = target.read_bytes() if target.exists() else None
    out = base / "out"
    shutil.rmtree(out, ignore_errors=True)
    try:
        target.write_bytes(content)
        given = [str(source), str(out), "--images", str(source / "images"), *(flag.format(base=base) for flag in flags)]
        convert(parse_options(given))
        return len(records(out)) > 1
    except ConversionError as error:
        assert "\n" not in str(error) and not out.exists()
        return False
    finally:
        target.unlink()
        if before is not None:
            target.write_bytes(before)
        assert not list(base.glob(".out*")), "nothing half-written is left"


FUZZ = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CSV_FLAGS = ("--classes-csv", "{base}/t.csv")
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, -3, 1e308, 10**400, "7", "nan", None, True]))
texts = st.one_of(st.text(max_size=6), st.sampled_from(["0.png", "1.png", "2", "x", "a,b", "\ud800"]))
ids = st.one_of(st.integers(0, 3), numbers, texts)


@FUZZ
@given(
    content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: f"<annotation>{text}</annotation>".encode()))
)
def test_any_bytes_as_xml(tmp_path_factory, content):
    fuzzed(tmp_path_factory, "source/Annotations/0.xml", content, "--format", "voc", *CSV_FLAGS)


@FUZZ
@given(edges=st.lists(st.one_of(numbers, texts), min_size=4, max_size=4), size=st.tuples(numbers, numbers), name=texts)
def test_any_values_in_xml(tmp_path_factory, edges, size, name):
    boxes = "".join(f"<{tag}>{edge}</{tag}>" for tag, edge in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True))
    text = (
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size><object><name>{name}</name><bndbox>{boxes}"
    )
    content = f"{text}</bndbox></object></annotation>".encode(errors="surrogatepass")
    fuzzed(tmp_path_factory, "source/Annotations/0.xml", content, "--format", "voc", *CSV_FLAGS)


json_values = st.recursive(
    st.one_of(numbers, texts), lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3))
)
entries = {
    "images": st.fixed_dictionaries(
        {"id": ids, "file_name": st.one_of(texts, json_values)},
        optional={"width": numbers, "height": numbers, "class": json_values},
    ),
    "annotations": st.fixed_dictionaries(
        {"image_id": ids, "category_id": ids, "bbox": st.one_of(json_values, st.lists(numbers, min_size=4, max_size=4))},
        optional={"segmentation": st.lists(st.lists(numbers, max_size=8), max_size=2), "iscrowd": numbers},
    ),
    "categories": st.fixed_dictionaries({"id": ids, "name": texts}),
}
coco_like = st.fixed_dictionaries({key: st.lists(st.one_of(entry, json_values), max_size=4) for key, entry in entries.items()})
SOUND = {
    "images": [coco_image(n, f"{n}.png", label="x") for n in range(3)],
    "annotations": [coco_box(n, 1, 4, 2, 8, 8) for n in range(3)],
    "categories": [{"id": 1, "name": "red"}],
}


@FUZZ
@given(content=st.one_of(st.binary(max_size=60), coco_like.map(lambda value: json.dumps(value).encode())))
def test_any_json(tmp_path_factory, content):
    flags = ("--format", "coco", "--annotations", "{base}/source/all.json", "--min-images", "1")
    fuzzed(tmp_path_factory, "source/all.json", content, *flags)


@FUZZ
@given(odd=coco_like)
def test_any_entries_among_sound_ones_in_json(tmp_path_factory, odd):
    names = {str(entry.get("file_name")).lower() for entry in odd["images"] if isinstance(entry, dict)}
    assume(not names & {image["file_name"] for image in SOUND["images"]})  # a second entry of a picture puts it in doubt
    content = json.dumps({key: SOUND[key] + odd[key] for key in SOUND}).encode()
    flags = ("--format", "coco", "--annotations", "{base}/source/all.json", "--min-images", "1", "--polygons")
    assert fuzzed(tmp_path_factory, "source/all.json", content, *flags), "the sound entries are converted"


def broken(content: bytes) -> st.SearchStrategy[bytes]:
    """The content with a stretch of it lost, or replaced."""
    places = st.integers(0, len(content))
    filling = st.one_of(
        st.just(b""), st.binary(max_size=8), st.sampled_from([b'"', b"]", b"<", b",", b"-", b"9", b"\xff", b"\n\n"])
    )
    return st.tuples(places, st.integers(0, 40), filling).map(
        lambda damage: content[: damage[0]] + damage[2] + content[damage[0] + damage[1] :]
    )


LOSSES: dict[str, Callable[[dict], object]] = {
    "box without area": lambda entry: entry.update(bbox=[5, 5, 0, 0]),
    "box wholly outside the image": lambda entry: entry.update(bbox=[400, 2, 8, 8]),
    "box of a class that is not in names": lambda entry: entry.update(category_id=99),
    "object without a usable class or box": lambda entry: entry.update(bbox=["a", None, 1, 2]),
    "annotation without an image": lambda entry: entry.pop("image_id"),
    "crowd region of COCO": lambda entry: entry.update(iscrowd=True),
}


@FUZZ
@given(lost=st.dictionaries(st.integers(0, 5), st.sampled_from(sorted(LOSSES)), max_size=6))
def test_boxes_that_cannot_be_read_are_lost_alone_and_named(tmp_path_factory, lost):
    base = fuzz_folder(tmp_path_factory)
    content = {
        "images": [coco_image(n, f"{n}.png", label="x") for n in range(4)],
        "annotations": [coco_box(n % 4, 1, *box) for n, box in enumerate(BOXES)],
        "categories": [{"id": 1, "name": "red"}],
    }
    for n, kind in lost.items():
        LOSSES[kind](content["annotations"][n])
    flags = ("--format", "coco", "--annotations", "{base}/source/all.json", "--val-share", "0.5")
    if not fuzzed(tmp_path_factory, "source/all.json", json.dumps(content).encode(), *flags):
        assert len(lost) == 6, "one box is enough"
        return
    kept = sorted((record.boxes for record in records(base / "out").values()), key=str)
    expected = [
        tuple(
            Box(0, (x + width / 2) / WIDTH, (y + height / 2) / HEIGHT, width / WIDTH, height / HEIGHT)
            for n, (x, y, width, height) in enumerate(BOXES)
            if n % 4 == image and n not in lost
        )
        for image in range(4)
    ]
    assert np.allclose([box for boxes in kept for box in boxes], [box for boxes in sorted(expected, key=str) for box in boxes])
    cases = Counter(row["found"] for row in csv.DictReader((base / "out" / "conversion.csv").open(encoding="utf-8")))
    assert {kind: cases[kind] for kind in LOSSES} == {kind: list(lost.values()).count(kind) for kind in LOSSES}


@FUZZ
@given(content=broken(json.dumps(SOUND).encode()))
def test_damaged_json_fails_or_is_read(tmp_path_factory, content):
    flags = ("--format", "coco", "--annotations", "{base}/source/all.json", "--min-images", "1", "--json-key", "label")
    fuzzed(tmp_path_factory, "source/all.json", content, *flags)


@FUZZ
@given(content=broken(b"<annotation><object><name>red</name><bndbox><xmin>4</xmin><ymin>2</ymin><xmax>12</xmax><ymax>10</ymax>"
                      b"</bndbox></object></annotation>"))  # fmt: skip
def test_damaged_xml_costs_no_other_image(tmp_path_factory, content):
    flags = ("--format", "voc", "--min-images", "1", "--val-share", "0.5", *CSV_FLAGS)
    assert fuzzed(tmp_path_factory, "source/Annotations/0.xml", content, *flags)
    result = {name.split("/")[1]: record for name, record in records(fuzz_folder(tmp_path_factory) / "out").items()}
    index = names(fuzz_folder(tmp_path_factory) / "out", "names").index("red")
    assert [result[stem].boxes[0].class_index for stem in "123"] == [index] * 3
    assert "0" not in result or len(result["0"].boxes) <= 1


@FUZZ
@given(content=broken(b"image,class\n0,x\n1,y\n2,x\n3.png,y\n"))
def test_a_damaged_class_table_gives_no_class_that_is_not_in_it(tmp_path_factory, content):
    if fuzzed(tmp_path_factory, "t.csv", content, "--format", "voc", "--min-images", "1", *CSV_FLAGS):
        assert all(name.encode() in content for name in names(tmp_path_factory.getbasetemp() / "fuzz" / "out"))


@FUZZ
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: f"image,class\n{text}".encode())))
def test_any_bytes_as_csv(tmp_path_factory, content):
    fuzzed(tmp_path_factory, "t.csv", content, "--format", "voc", "--min-images", "1", *CSV_FLAGS)


@FUZZ
@given(images=st.lists(texts), name=texts)
def test_any_rows_after_sound_ones_in_csv(tmp_path_factory, images, name):
    stream = io.StringIO()
    csv.writer(stream).writerows([("image", "class"), ("2", "x"), ("3", "y"), *((a, name) for a in images if a not in "23")])
    content = stream.getvalue().encode(errors="replace")
    assert fuzzed(tmp_path_factory, "t.csv", content, "--format", "voc", "--min-images", "1", *CSV_FLAGS)


yolo_fields = st.one_of(st.floats(-1, 2).map(str), st.sampled_from(["0", "1", "9", "nan", "x", "1e400"]))
yolo_lines = st.lists(st.lists(yolo_fields, max_size=9).map(" ".join))


@FUZZ
@given(content=st.one_of(st.binary(max_size=60), yolo_lines.map(lambda lines: "\n".join(lines).encode())))
def test_any_bytes_as_yolo_labels(tmp_path_factory, content):
    flags = ("--format", "yolo", "--names", "red", "--classes-from", "labels", "--image-class", "x", "y", "--min-images", "1")
    assert fuzzed(tmp_path_factory, "source/labels/0.txt", content + b"\n", *flags), "the other images are converted"


yaml_like = json_values.map(lambda value: json.dumps({"names": value, "train": value}).encode())


@FUZZ
@given(content=st.one_of(st.binary(max_size=60), yaml_like))
def test_any_bytes_as_data_yaml(tmp_path_factory, content):
    fuzzed(tmp_path_factory, "source/data.yaml", content, "--format", "yolo", *CSV_FLAGS)
