"""`convert` from CVAT, Label Studio and masks: boxes and what is said of the image, as these programs export it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_convert import BLUE, HEIGHT, RED, WIDTH, by_stem, close, draw, names, run, split_of, tree  # noqa: F401

from gradnorm_plugin.convert.command import convert, main, parse_options
from gradnorm_plugin.convert.oddities import ConversionError
from gradnorm_plugin.labels import Box, Polygon

UNREADABLE = "object without a usable class or box"
AS_BOXES = [Box(1, 0.2, 0.3, 0.2, 0.4), Box(0, 0.75, 0.75, 0.5, 0.5)]  # RED and BLUE, names in alphabetical order
VIEWS = ["PLAX", "PSAX", "PLAX", "PSAX"]
SHARES = ("--val-share", 0.5)


def cvat_box(name: str, *edges: float, more: str = "") -> str:
    sides = " ".join(f'{side}="{edge:.2f}"' for side, edge in zip(("xtl", "ytl", "xbr", "ybr"), edges, strict=True))
    attribute = '<attribute name="sure">yes</attribute>'
    return f'<box label="{name}" source="manual" occluded="0" {sides} z_order="0"{more}>{attribute}</box>\n'


def cvat(folder: Path, bodies: list[str], attributes: str = "", file: str = "annotations.xml") -> Path:
    """A CVAT export of a picture for each body: pictures in `images/`, one XML file."""
    images = ""
    for number, body in enumerate(bodies):
        draw(folder / "images" / f"{number}.png")
        images += f'<image id="{number}" name="{number}.png" width="{WIDTH}" height="{HEIGHT}"{attributes}>\n{body}</image>\n'
    labels = "".join(f"<label><name>{name}</name><color>#c06060</color></label>" for name in ("red", "blue", "view", "unused"))
    meta = f"<meta><task><id>1</id><name>t</name><labels>{labels}</labels></task></meta>"
    (folder / file).write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n{meta}\n{images}</annotations>'
    )
    return folder / file


def tag(label: str, **attributes: object) -> str:
    inner = "".join(f'<attribute name="{name}">{value}</attribute>' for name, value in attributes.items())
    return f'<tag label="{label}" source="manual">{inner}</tag>\n'


def test_cvat_boxes_and_tags(run, tmp_path):  # noqa: F811
    cvat(tmp_path / "source", [cvat_box(*RED) + cvat_box(*BLUE) + tag(view) for view in VIEWS])
    assert set(run(*SHARES)) == set()
    assert names(tmp_path / "out", "names") == ["red", "blue"], "in the order of the file's labels, those that have boxes"
    assert names(tmp_path / "out") == ["PLAX", "PSAX"]
    for stem, record in by_stem(tmp_path).items():
        for found, expected in zip(record.boxes, AS_BOXES, strict=True):
            assert np.allclose(found[1:], expected[1:]) and record.image_class == int(stem) % 2


def test_cvat_attributes_of_tags_are_outputs_or_the_class(run, tmp_path):  # noqa: F811
    bodies = [cvat_box(*RED) + tag("view", plane=plane, EF=50 + n) for n, plane in enumerate(VIEWS)]
    cvat(tmp_path / "source", bodies, ' subset="Train" task_id="1"')
    run(*SHARES, "--class-key", "plane", "--output", "ef=EF:value:percent:0:100")
    described = (tmp_path / "out" / "data.yaml").read_text()
    assert names(tmp_path / "out") == ["PLAX", "PSAX"] and "value: percent" in described
    with pytest.raises(ConversionError, match=r"name no class of any image under `plan` \(there are tags, plane, EF\)"):
        run(*SHARES, "--class-key", "plan")
    assert "only one image class" in run(*SHARES), "the tag's label, which is one and the same"
    text = (tmp_path / "source" / "annotations.xml").read_text()
    (tmp_path / "source" / "annotations.xml").write_text(text.replace('"Train"', '"Val"', 2))
    run("--class-key", "plane")
    assert split_of(tmp_path / "out") == {"0": "val", "1": "val", "2": "train", "3": "train"}, "its subsets"


def test_cvat_shapes(run, tmp_path):  # noqa: F811
    shapes = [
        cvat_box("red", 10, 5, 30, 15, more=' rotation="90"'),
        '<polygon label="red" points="4.0,2.0;12.0,2.0;12.0,10.0"></polygon>',
        '<ellipse label="red" cx="20" cy="10" rx="8" ry="4"></ellipse>',
        '<mask label="red" rle="1, 2" left="4" top="2" width="8" height="8"></mask>',
        '<ellipse label="red" cx="20" cy="10" rx="8" ry="4" rotation="90"></ellipse>',
    ]
    odd = [
        '<polyline label="red" points="1,1;2,2"></polyline>',
        '<box label="red" xtl="a" ytl="1" xbr="2" ybr="2"></box>',
        '<box xtl="0" ytl="1" xbr="2" ybr="2"></box>',
        '<polygon label="red" points="4.0,2.0;12.0"></polygon>',
    ]
    cvat(tmp_path / "source", ["\n".join(shapes + odd) + tag("a"), cvat_box(*BLUE) + tag("b")])
    found = run(*SHARES, "--min-images", 1)
    boxes = [(0.5, 0.5, 0.25, 1), (0.2, 0.3, 0.2, 0.4), (0.5, 0.5, 0.4, 0.4), (0.2, 0.3, 0.2, 0.4), (0.5, 0.5, 0.2, 0.8)]
    boxes = list(dict.fromkeys(boxes))  # the polygon's and the mask's are the same
    assert [pytest.approx(box[1:]) for box in by_stem(tmp_path)["0"].boxes] == boxes
    assert [case.partition(": ")[2] for case in found[UNREADABLE]] == [
        "red: a polyline is no box",
        "a box: its numbers cannot be read",
        "a box: no label",
        "a polygon: its numbers cannot be read",
    ]
    assert found["object with a turned box"][0].endswith("red, by 90 degrees")
    run(*SHARES, "--min-images", 1, "--polygons")
    assert Polygon(0, ((0.1, 0.1), (0.3, 0.1), (0.3, 0.5))) in by_stem(tmp_path)["0"].polygons


def rectangle(name: str, x1: float, y1: float, x2: float, y2: float, **value: object) -> dict[str, Any]:
    """As Label Studio has it: per cent of the picture."""
    box = {"x": x1 * 100 / WIDTH, "y": y1 * 100 / HEIGHT, "width": (x2 - x1) * 100 / WIDTH, "height": (y2 - y1) * 100 / HEIGHT}
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    value = {**box, "rotation": 0, "rectanglelabels": [name], **value}
    return {"id": f"r{x1}", "type": "rectanglelabels", "from_name": "label", "to_name": "image", **size, "value": value}


def choice(name: str, *chosen: str, **more: object) -> dict[str, Any]:
    return {"id": "c", "type": "choices", "from_name": name, "to_name": "image", "value": {"choices": list(chosen), **more}}


def task(number: int, *results: object, **more: object) -> dict[str, Any]:
    annotation = {"id": number, "result": list(results), "was_cancelled": False, "updated_at": "2024-01-01T00:00:00Z"}
    upload = f"9a3b{number:04x}-{number}.png"
    return {
        "id": number + 10,
        "annotations": [annotation],
        "file_upload": upload,
        "predictions": [],
        "data": {"image": f"/data/upload/1/{upload}"},
        **more,
    }


def label_studio(folder: Path, tasks: list[Any]) -> None:
    for number in range(len(tasks)):
        draw(folder / "images" / f"{number}.png")
    (folder / "project-1.json").write_text(json.dumps(tasks))


def test_label_studio_rectangles_and_choices(run, tmp_path):  # noqa: F811
    number = {"type": "number", "from_name": "EF", "value": {"number": 55}}
    tree_of = {"type": "taxonomy", "from_name": "kind", "value": {"taxonomy": [["Heart", "left"], ["Heart", "right"]]}}
    of_box = choice("quality", "good", x=1, y=1, width=2, height=2)
    results = [[rectangle(*RED), rectangle(*BLUE), choice("view", view), number, tree_of, of_box] for view in VIEWS]
    label_studio(tmp_path / "source", [task(n, *of_task) for n, of_task in enumerate(results)])
    run(*SHARES, "--class-key", "view", "--output", "ef=EF:value:percent:0:100", "--output", "side=kind:labels")
    assert names(tmp_path / "out") == ["PLAX", "PSAX"] and names(tmp_path / "out", "names") == ["blue", "red"]
    described = (tmp_path / "out" / "data.yaml").read_text()
    assert "Heart/left" in described and "quality" not in described
    text = next((tmp_path / "out" / "labels").glob("*/0.txt")).read_text()
    assert "ef: 55" in text and "side: 1 1" in text
    with pytest.raises(ConversionError, match="view, kind may be the image's class: say which by --class-key KEY"):
        run(*SHARES)
    label_studio(tmp_path / "source", [task(n, *of_task[:4]) for n, of_task in enumerate(results)])
    assert set(run(*SHARES)) == set(), "the only choice there is"
    for stem, record in by_stem(tmp_path).items():
        assert all(map(close, record.boxes, AS_BOXES)) and record.image_class == int(stem) % 2


def test_label_studio_oddities(run, tmp_path):  # noqa: F811
    old = {"result": [rectangle("blue", 0, 0, 4, 4)], "updated_at": "2023"}
    new = {"result": [rectangle("red", 0, 0, 4, 4), choice("view", "x")], "updated_at": "2025"}
    skipped = {"result": [], "was_cancelled": True, "updated_at": "2026"}
    polygon = {"type": "polygonlabels", "value": {"points": [[10, 10], [30, 10], [30, 50]], "polygonlabels": ["red"]}}
    brush = {"type": "brushlabels", "value": {"rle": [1], "format": "rle", "brushlabels": ["red"]}}
    turned = rectangle("red", 20, 0, 30, 10, rotation=90)
    tasks = [
        task(0, annotations=[new, old, skipped]),
        task(1, annotations=[skipped]),
        task(
            2,
            polygon,
            brush,
            turned,
            {**rectangle(*RED), "image_rotation": 90},
            rectangle("red", 0, 0, 1, 1, rectanglelabels=[]),
            7,
        ),
        task(3, rectangle(*BLUE), choice("view", "y"), data={"image": "/data/local-files/?d=images/3.png"}, file_upload=None),
        {"id": 4, "image": "/data/upload/1/9a3b0004-4.png", "label": [rectangle(*RED)["value"]], "view": "x", "annotation_id": 2},
        task(5, data={"image": "s3://bucket/none.png"}, file_upload="none.png"),
        "nonsense",
    ]
    label_studio(tmp_path / "source", tasks)
    found = run(*SHARES, "--min-images", 1)
    read = by_stem(tmp_path)
    assert set(read) == {"0", "2", "3", "4"} and len(read["0"].boxes) == 1 and read["0"].image_class == read["4"].image_class == 0
    assert found["task that nobody has annotated"] == ["source/project-1.json: task 11: /data/upload/1/9a3b0001-1.png: "]
    assert found["task annotated several times"][0].endswith("0.png: 2; the newest counts")
    assert found["annotation without an image"] == ["source/project-1.json: task 15: /none.png: no such image"]
    assert found["annotation that cannot be read"] == ["source/project-1.json: task [6]: no task"]
    assert [case.split(": ", 4)[-1] for case in found[UNREADABLE]] == [
        "brushlabels have no box: export them as masks or as COCO",
        "a picture turned in Label Studio",
        "0 labels",
        "1 results without a value",
    ]
    assert close(read["3"].boxes[0], AS_BOXES[1]) and close(read["4"].boxes[0], AS_BOXES[0])
    # Turned about its upper left corner by 90 degrees: from (20, 0), ten to the left and ten down
    assert [pytest.approx(box[1:]) for box in read["2"].boxes] == [(0.2, 0.3, 0.2, 0.4), (0.375, 0.25, 0.25, 0.5)]


def mask(file: Path, palette: bool = False, **values: int) -> None:
    """A mask in which RED's and BLUE's pixels have the values given."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for (_, x1, y1, x2, y2), value in ((RED, values.get("red", 0)), (BLUE, values.get("blue", 0))):
        pixels[y1:y2, x1:x2] = value
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(file)


@pytest.mark.parametrize(
    ("layout", "flags", "expected"),
    [
        ("grey", ("--mask-classes", "2=blue", "7=red"), ["blue", "red"]),
        ("grey", (), ["2", "7"]),
        ("palette", ("--names", "blue", "red"), ["blue", "red"]),
        ("colour", ("--mask-classes", "#ff0000=red", "#0000ff=blue"), ["blue", "red"]),
        ("file for each object", (), ["blue", "red"]),
        ("file for each class", (), ["blue", "red"]),
        ("folder for each image", (), ["object"]),
    ],
)
def test_masks(run, tmp_path, layout, flags, expected):  # noqa: F811
    source = tmp_path / "source"
    for n, view in enumerate(VIEWS):
        if layout == "folder for each image":
            draw(source / f"{view}{n}" / "images" / f"{n}.png")
            for name, more in (("ab12", {"red": 255}), ("cd34", {"blue": 255})):
                mask(source / f"{view}{n}" / "masks" / f"{name}.png", **more)
            continue
        draw(source / "images" / view / f"{n}.png")
        if layout == "colour":
            mask(source / "masks" / f"{n}.png", red=1, blue=2)
            colours = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)
            Image.fromarray(colours[np.asarray(Image.open(source / "masks" / f"{n}.png"))]).save(source / "masks" / f"{n}.png")
        elif layout.startswith("file"):
            for name in ("red", "blue"):
                mask(source / "masks" / f"{n}_{name}{'_01' * (layout == 'file for each object')}.png", **{name: 255})
        elif layout == "palette":
            mask(source / "masks" / f"{n}_mask.png", palette=True, red=2, blue=1)
        else:
            mask(source / "masks" / f"{n}.png", red=7, blue=2)
    classes = ("--class-pattern", "/?(P.AX)[0-9]*/")
    found = run(*SHARES, *classes, *flags)
    assert set(found) == set() and set(names(tmp_path / "out", "names")) == set(expected)
    boxes = {"blue": AS_BOXES[1], "red": AS_BOXES[0]}
    for record in by_stem(tmp_path).values():
        assert np.allclose(sorted(box[1:] for box in record.boxes), sorted(box[1:] for box in boxes.values()))
        called = [names(tmp_path / "out", "names")[box.class_index] for box in record.boxes]
        assert layout == "folder for each image" or sorted(called) == expected
        if expected == ["blue", "red"]:
            assert all(box[1:] == pytest.approx(boxes[name][1:]) for name, box in zip(called, record.boxes, strict=True))


def test_masks_that_are_odd_or_of_no_use(run, tmp_path):  # noqa: F811
    source = tmp_path / "source"
    for n in range(4):
        draw(source / "a" / f"{n}.png")
        mask(source / "masks" / f"{n}.png", red=1, blue=255)
    pixels = np.asarray(Image.open(source / "masks" / "0.png")).copy()
    pixels[0, 0] = pixels[15, 1] = pixels[16, 2] = 1  # two specks, joined by no side and no corner
    Image.fromarray(pixels).resize((WIDTH * 2, HEIGHT * 2), Image.Resampling.NEAREST).save(source / "masks" / "0.png")
    mask(source / "masks" / "9.png", red=1)
    (source / "masks" / "3.png").write_bytes(b"none")
    flags = (*SHARES, "--class-pattern", "^.")
    found = run(*flags, "--min-images", 1)
    assert len(by_stem(tmp_path)) == 3 and names(tmp_path / "out", "names") == ["1"], "255 beside others is no class"
    assert sorted(found["annotation without an image"]) == ["source/masks/9.png: no image of its stem"]
    assert found["annotation that cannot be read"][0].startswith("source/masks/3.png: not a whole picture")
    assert len(by_stem(tmp_path)["0"].boxes) == 3, "a mask of twice the size; four pixels now are no speck"
    Image.fromarray(pixels).save(source / "masks" / "0.png")
    assert len(run(*flags, "--min-images", 1)["speck of a mask, smaller than 4 pixels"]) == 2
    for more, message in (
        (("--mask-classes", "3=x"), "--mask-classes: no mask has 3; there are 1, 255"),
        (("--names", "a", "b"), None),
        (("--mask-classes", "1=a", "255=b"), None),
    ):
        if message:
            with pytest.raises(ConversionError, match=message):
                run(*flags, "--min-images", 1, *more)
        else:
            run(*flags, "--min-images", 1, *more)
    assert names(tmp_path / "out", "names") == ["a", "b"] and len(by_stem(tmp_path)["1"].boxes) == 2
    Image.fromarray(np.arange(WIDTH * HEIGHT, dtype=np.uint32).reshape(HEIGHT, WIDTH).astype(np.uint8)).save(
        source / "masks" / "1.png"
    )
    with pytest.raises(ConversionError, match="masks/1.png: 256 different values are no classes"):
        run(*flags)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.xml", "<annotations><track id='0' label='x'></track></annotations>", "a.xml:1: CVAT for video: export it as"),
        ("a.xml", "<annotations>\n<image", "a.xml:2: not well-formed XML"),
        ("a.xml", "<annotations></annotations>", "has no box with a class"),
        ("a.json", "[]", "source has no Label Studio file (JSON, a list of tasks)"),
        (
            "a.json",
            '[{"data": {"image": "0.png"}, "annotations": []}]',
            "has no box with a class: task that nobody has annotated (1)",
        ),
        ("a.json", '[{"data":\n{"image": "0.png"', "a.json:2: not JSON"),
    ],
)
def test_exports_that_cannot_be_used_are_one_line(run, tmp_path, capsys, file, content, message):  # noqa: F811
    draw(tmp_path / "source" / "0.png")
    (tmp_path / "source" / file).write_text(content)
    before = tree(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["source", "out"])
    error = capsys.readouterr().err
    assert end.value.code == 1 and message in error and error.count("\n") == 1 and tree(tmp_path) == before


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4) | st.sampled_from(["0.png", "red", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "points", "choices", "number"]), inner)
    ),
    max_leaves=6,
)


@given(
    kind=st.sampled_from(["rectanglelabels", "polygonlabels", "ellipselabels", "choices", "taxonomy", "number", "z"]),
    value=anything | st.fixed_dictionaries({}, optional={key: anything for key in ("x", "y", "rotation", "points", "choices")}),
    more=st.fixed_dictionaries({}, optional={key: anything for key in ("annotations", "data", "id", "file_upload", "view")}),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_result_in_label_studios_json(tmp_path_factory, kind, value, more):
    base = tmp_path_factory.mktemp("fuzz")
    odd = {"type": kind, "from_name": "view", "value": value, "original_width": 1e308, "original_height": 1e-308}
    label_studio(
        base / "source", [task(0, rectangle(*RED), choice("view", "x"), odd), task(1, rectangle(*BLUE), choice("view", "y"))]
    )
    content = json.loads((base / "source" / "project-1.json").read_text())
    (base / "source" / "project-1.json").write_text(json.dumps([*content, {**task(2), **more}]))
    try:
        convert(parse_options([str(base / "source"), str(base / "out"), "--val-share", "0.5", "--min-images", "1"]))
    except ConversionError:
        assert not (base / "out").exists()
