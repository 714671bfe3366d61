"""`convert --output`: each kind, each source, what people write into tables, and that what is written is read back."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_convert import coco_box, coco_image, draw, run, write_coco, write_voc  # noqa: F401  (run is a fixture)

from gradnorm_plugin.convert.command import convert, parse_options
from gradnorm_plugin.convert.oddities import ConversionError
from gradnorm_plugin.data.checking import check_labels
from gradnorm_plugin.data.description import image_outputs
from gradnorm_plugin.labels import read_label_file
from gradnorm_plugin.outputs import Value, label_rules
from gradnorm_plugin.upstream.gateway import upstream

EF = "ef=EF:value:percent:0:100"
NO_LINE, BAD = "image without an entry for an image output", "entry that its image output cannot take"


@pytest.fixture
def table(run, tmp_path, request):  # noqa: F811
    """Convert images i0, i1, ... with a table of these columns, as pandas reads them: the oddities."""

    def convert_table(columns: dict[str, list[str]], *flags: object, separator: str = ",") -> dict[str, list[str]]:
        count = len(next(iter(columns.values())))
        write_voc(tmp_path / "source", {f"i{n}": "" for n in range(count)})
        with (tmp_path / "t.csv").open("w", newline="") as stream:
            rows = csv.writer(stream, delimiter=separator)
            rows.writerow(["image", *columns])
            rows.writerows([f"i{n}.png", *cells] for n, cells in enumerate(zip(*columns.values(), strict=True)))
        return run("--classes-csv", "t.csv", "--min-images", 1, *flags)

    return convert_table


def read(out: Path) -> tuple[dict, dict[str, dict[str, tuple[float, ...]]]]:
    """The data yaml, and what each label file says by image and output."""
    described = yaml.safe_load((out / "data.yaml").read_text())
    outputs = image_outputs(described)
    rules = label_rules(outputs, len(described["names"]))
    found = {}
    for file in (out / "labels").glob("*/*.txt"):
        record = read_label_file(file, None, 0, rules)
        said = {output.name: record.target(output.name, rules) for output in outputs}
        found[file.stem] = {name: target for name, target in said.items() if target is not None}
    return described, found


def test_the_three_kinds_from_one_table_pass_the_checks(table, tmp_path):
    columns = {
        "Category": ["a", "b", "a", "b", "", "a"],
        "View": ["PLAX", "PSAX", "PLAX", "", "PSAX", "PLAX"],
        "Findings": ["effusion", "effusion; clot", "none", "", "clot,effusion,clot", "['clot', 'effusion']"],
        "EF": ["55", "", "60.5", "0", "100", "33"],
    }
    wished = ["--output", "class=Category", "--output", "view=View", "--output", "finding=Findings:labels", "--output", EF]
    found = table(columns, *wished, "--val-share", 0.34)
    found.pop("class that a split has no example of", None)
    assert found == {
        "image without a class": ["i4.png: "],
        NO_LINE: ["i3.png: view", "i3.png: finding", "i1.png: ef"],
    }
    described, said = read(tmp_path / "out")
    assert described["classification_names"] == {0: "a", 1: "b"}
    assert described["image_outputs"] == {
        "view": {"classes": ["PLAX", "PSAX"]},
        "finding": {"labels": ["clot", "effusion"]},
        "ef": {"value": "percent", "range": [0.0, 100.0]},
    }
    assert said == {
        "i0": {"class": (0,), "view": (0,), "finding": (0, 1), "ef": (55,)},
        "i1": {"class": (1,), "view": (1,), "finding": (1, 1)},
        "i2": {"class": (0,), "view": (0,), "finding": (0, 0), "ef": (60.5,)},
        "i3": {"class": (1,), "ef": (0,)},
        "i4": {"view": (1,), "finding": (1, 1), "ef": (100,)},
        "i5": {"class": (0,), "view": (0,), "finding": (1, 1), "ef": (33,)},
    }
    data = upstream("utils.general").check_dataset(str(tmp_path / "out" / "data.yaml"))
    scans = check_labels(data, ("train", "val"), ("boxes", "class", "view", "finding", "ef"))
    assert {split: len(scan.targets["ef"]) for split, scan in scans.items()} == {"train": 4, "val": 2}
    report = (tmp_path / "out" / "conversion.md").read_text()
    assert "| split | boxes | image classes | view | finding | ef |" in report and "percent" in report


def test_class_alone_is_written_as_without_output(table, run, tmp_path):  # noqa: F811
    columns = {"Category": ["a", "b", "a", "b", "a; b", ""], "EF": ["1"] * 6}
    written = []
    for flags in (["--output", "class=Category"], ["--csv-columns", "image", "Category"]):
        table(columns, *flags)
        files = sorted(file for file in (tmp_path / "out").rglob("*") if file.suffix in (".txt", ".yaml", ".md", ".csv"))
        written.append({file.relative_to(tmp_path): file.read_bytes() for file in files})
    assert written[0] == written[1]


def test_a_bare_class_line_stays_where_it_can_be_told(table, tmp_path):
    columns = {"Category": ["a", "b", "a", "b"], "View": ["x", "y", "x", "y"], "EF": ["1", "2", "3", "4"]}
    flags = "--csv-columns", "image", "Category", "--output"
    table(columns, *flags, EF)
    assert [next((tmp_path / "out" / "labels").glob("*/i1.txt")).read_text().splitlines()[-2:]] == [["ef: 2.0", "0 1"]]
    table(columns, *flags, "view=View")  # the line of `classification_names` needs no name beside any other
    lines = next((tmp_path / "out" / "labels").glob("*/i1.txt")).read_text().splitlines()
    assert lines[-2:] == ["view: 0 1", "0 1"] and read(tmp_path / "out")[1]["i1"] == {"class": (1,), "view": (1,)}


def test_columns_of_marks_as_people_write_them(table, tmp_path):
    columns = {
        "Effusion": ["1", "yes", "TRUE", "1.0", "0", "", "1", "maybe"],
        "Clot": ["0", "No", "False", "y", "n", "nan", "", "1"],
    }
    found = table(columns, "--output", "finding=effusion,clot:labels")
    assert found[NO_LINE] == ["i5.png: finding"]
    assert found[BAD] == [
        "t.csv:8: i6.png: finding: nothing under Clot",
        "t.csv:9: i7.png: finding: maybe is neither 0 nor 1 (nor yes, no, true, false)",
    ]
    described, said = read(tmp_path / "out")
    assert described["image_outputs"]["finding"] == {"labels": ["Effusion", "Clot"]} and "classification_names" not in described
    marks = {name: targets["finding"] for name, targets in said.items() if targets}
    assert marks == {"i0": (1, 0), "i1": (1, 0), "i2": (1, 0), "i3": (1, 1), "i4": (0, 0)}
    table(columns, "--output", "finding=Effusion,Clot:labels:E,C")
    assert read(tmp_path / "out")[0]["image_outputs"]["finding"] == {"labels": ["E", "C"]}
    table({"Effusion": ["1", "0", "1"]}, "--output", "finding=Effusion:labels")
    assert read(tmp_path / "out")[0]["image_outputs"]["finding"] == {"labels": ["Effusion"]}


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["55%", "55.5 %", "55 percent", "5.5e1"], [55, 55.5, 55, 55]),
        (["55,5", "5,125", "1.234"], [55.5, 5.125, None]),  # a comma is the decimal sign in one cell, so in all
        (["55.5", "1,234", "5"], [55.5, None, 5]),  # a point is
        (["5,125", "6", ""], [5.125, 6, None]),  # 5125 is outside the range
        (["1.234", "2.345"], [1.234, 2.345]),
        (["1 234", "1'234", "12"], [None, None, 12]),
        (["+5", "007", ".5", "\u22121", "1_0", "\u0665"], [5, 7, 0.5, None, None, None]),
        (["60", ">70", "50-60", "inf", "nan", "NA", "None", "-", "TRUE", "55 ml"], [60, *[None] * 9]),
        (["100", "100.0001", "0", "-0.0", "1e999"], [100, None, 0, 0, None]),
    ],
)
def test_numbers_as_people_write_them(table, tmp_path, cells, values):
    found = table({"EF": cells}, "--output", EF, separator=";")
    said = read(tmp_path / "out")[1]
    assert [said[f"i{n}"].get("ef", (None,))[0] for n in range(len(cells))] == values
    lost = {f"i{n}" for n, value in enumerate(values) if value is None}
    named = [re.search(r"(i\d+)\.png", case).group(1) for kind in (NO_LINE, BAD) for case in found.get(kind, [])]
    assert sorted(named) == sorted(lost), "each image that lost its number is named, once"
    assert all(re.match(r"t\.csv:\d+: ", case) for case in found.get(BAD, []))


def test_a_number_that_may_be_two_is_not_guessed(table, tmp_path):
    found = table({"Mass": ["1,234", "2000"]}, "--output", "mass=Mass:value:g:0:5000", separator=";")
    assert found[BAD] == [
        "t.csv:2: i0.png: mass: 1,234 may be 1.234 or 1234: write it without signs between thousands",
    ]
    table({"Mass": ["1,234", "2,000.5"]}, "--output", "mass=Mass:value:g:0:5000", separator=";")
    assert read(tmp_path / "out")[1] == {"i0": {"mass": (1234,)}, "i1": {"mass": (2000.5,)}}


def test_names_that_look_like_numbers_and_odd_columns(table, tmp_path):
    columns = {"EF (%)": ["1", "2", "3"], "Grade: final": ["007", "1", "007"], "EF": ["7", "8", "9"]}
    table(columns, "--output", "ef=EF (%):value:%:0:100", "--output", "grade=Grade: final")
    described, said = read(tmp_path / "out")
    assert described["image_outputs"]["grade"] == {"classes": ["007", "1"]} and described["image_outputs"]["ef"]["value"] == "%"
    assert [said[f"i{n}"] for n in range(3)] == [{"ef": (n + 1,), "grade": (n % 2,)} for n in range(3)]


def test_listed_names_order_rare_and_unknown_ones(table, tmp_path):
    columns = {"View": ["x", "y", "x", "y", "z", "x; y", "x"], "Findings": ["b", "b; a", "a", "none", "b; c", "a", "B"]}
    view, finding = "view=View:classes:y,x", "finding=Findings:labels:b,a,d"
    found = table(columns, "--output", view, "--output", finding, "--min-images", 2)
    assert found["name that --output does not list"] == ["i4.png: view: z", "i4.png: finding: c", "i6.png: finding: B"]
    assert found["image with several classes for one image output"] == ["i5.png: view: x, y"]
    assert found["class or label of an image output that no image has"] == ["d: finding"]
    described, said = read(tmp_path / "out")
    assert described["image_outputs"] == {"view": {"classes": ["y", "x"]}, "finding": {"labels": ["b", "a"]}}
    assert said["i1"] == {"view": (0,), "finding": (1, 1)} and said["i4"] == {"finding": (1, 0)}
    found = table(columns, "--output", "finding=Findings:labels", "--min-images", 2)
    rare = "class or label of an image output that is too rare"
    assert found[rare] == ["i4.png: finding: c, 1 of at least 2 images", "i6.png: finding: B, 1 of at least 2 images"]
    found = table(columns, "--output", "finding=Findings:labels")
    assert found["image classes that differ only in upper and lower case"] == ["B (1), b (3): finding"]
    found = table({"Findings": ["clot", "", "clot"]}, "--output", "finding=Findings:labels")
    assert found["label that every labelled image has"] == ["clot: finding: 2 images"]


def test_rows_of_one_image_agree_or_not(run, tmp_path):  # noqa: F811
    write_voc(tmp_path / "source", {f"i{n}": "" for n in range(3)})
    flags = "--classes-csv", "t.csv", "--min-images", 1, "--output"

    def convert_rows(wish: str, *rows: str) -> dict[str, list[str]]:
        (tmp_path / "t.csv").write_text("image,x,y\n" + "\n".join(rows))
        return run(*flags, wish)

    same = "i0,5,1", "i0,5.0,1", "i1,6,0", "i0,,"
    assert convert_rows("v=x:value:mm:0:9", *same)["image with several CSV rows"] == ["t.csv:3: i0.png", "t.csv:5: i0.png"]
    assert read(tmp_path / "out")[1]["i0"] == {"v": (5,)}
    found = convert_rows("v=x:value:mm:0:9", "i0,5,1", "i0,?,1", "i1,6,0")
    assert found[BAD] == ["t.csv:3: i0.png: v: ? is not a number"] and read(tmp_path / "out")[1]["i0"] == {}
    convert_rows("v=x:labels", "i0,a,", "i0,b,", "i1,b,")  # a row for each label
    assert read(tmp_path / "out")[1]["i0"] == {"v": (1, 1)}
    for wish, rows, reason in (
        ("v=x:value:mm:0:9", ("i0,5,1", "i0,6,1"), "t.csv:2 and 3: i0.png has 5 for `v` in one row and 6 in the other"),
        ("v=x", ("i0,a,1", "i1,a,", "i0,b,1"), "t.csv:2 and 4: i0.png has a for `v` in one row and b in the other"),
        ("v=x,y:labels", ("i0,1,1", "i0,1,0"), "t.csv:2 and 3: i0.png has x, y for `v` in one row and x in the other"),
        ("v=x:labels", ("i0,a,", "i0,none,"), "t.csv:3 and 2: i0.png has no label of `v` in one row and a in the other"),
    ):
        with pytest.raises(ConversionError, match=re.escape(f"{reason}: remove the wrong row")):
            convert_rows(wish, *rows)
    found = convert_rows("v=x", "i0,a,", "i7,b,", "i1,b,")
    assert found["CSV row that fits no image"] == ["t.csv:3: i7"] and found[NO_LINE] == ["i2.png: v"]


def test_keys_of_coco_entries(run, tmp_path):  # noqa: F811
    more = [
        {"view": "x", "tags": ["a, b", "c"], "ef": 55.5, "clot": True, "thrombus": 0, "category": "p"},
        {"view": "y", "tags": [], "ef": "60 %", "clot": False, "thrombus": 1, "category": "q"},
        {"view": 7, "tags": None, "ef": None, "clot": False, "thrombus": 0, "category": "q"},
        {"view": {"name": "x"}, "tags": [["c"]], "ef": 101, "clot": None, "thrombus": 0, "category": "p"},
    ]
    images = [coco_image(n, f"{n}.png", **entry) for n, entry in enumerate(more)]
    for image in images:
        draw(tmp_path / "source" / image["file_name"])
    write_coco(tmp_path / "source" / "all.json", images, [coco_box(n, 7, 4, 2, 8, 8) for n in range(4)])
    wishes = "view=view", "tag=tags:labels", "ef=ef:value:percent:0:100", "finding=clot,thrombus:labels"
    flags = "--min-images", 1, *(word for wish in wishes for word in ("--output", wish))
    found = run(*flags)
    assert found[BAD] == [
        'source/all.json: 3.png: view: {"name": "x"} is no name',
        'source/all.json: 3.png: tag: [["c"]] is no list of names',
        "source/all.json: 3.png: ef: 101 is outside 0 to 100",
        "source/all.json: 3.png: finding: nothing under clot",
    ]
    assert found[NO_LINE] == ["2.png: tag", "2.png: ef"]
    described, said = read(tmp_path / "out")
    assert "classification_names" not in described and described["image_outputs"]["tag"] == {"labels": ["a, b", "c"]}
    assert said == {
        "0": {"view": (1,), "tag": (1, 1), "ef": (55.5,), "finding": (1, 0)},
        "1": {"view": (2,), "tag": (0, 0), "ef": (60,), "finding": (0, 1)},
        "2": {"view": (0,), "finding": (0, 0)},
        "3": {},
    }
    run(*flags, "--json-key", "category")
    assert read(tmp_path / "out")[1]["1"]["class"] == (1,) and read(tmp_path / "out")[0]["classification_names"] == {
        0: "p",
        1: "q",
    }
    with pytest.raises(ConversionError, match="the entries of the annotations: no column for `vieww` among id, file_name"):
        run("--output", "v=vieww")


def test_yolo_labels_keep_their_lines_and_take_more(table, run, tmp_path):  # noqa: F811
    columns = {"Category": ["a", "b", "a", "b"], "Findings": ["c", "d", "none", ""], "EF": ["1", "2", "", "4"]}
    table(columns, "--output", "class=Category", "--output", "finding=Findings:labels", "--output", EF)
    expected = read(tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "joint")
    (tmp_path / "source").rename(tmp_path / "old")
    shutil.move(tmp_path / "joint", tmp_path / "source")
    (tmp_path / "source" / "conversion.csv").unlink()
    found = run("--min-images", 1)
    assert [case.rpartition("/")[2] for case in found[NO_LINE]] == ["i3.png: finding", "i2.png: ef"]
    described, said = read(tmp_path / "out")
    assert said == expected[1] and described["image_outputs"] == expected[0]["image_outputs"]
    assert described["classification_names"] == {0: "a", 1: "b"}
    found = run("--min-images", 1, "--classes-csv", "t.csv", "--output", "grade=Category", "--output", "ef=EF:value:percent:0:10")
    assert [case.rpartition("/")[2] for case in found[NO_LINE]] == ["i3.png: finding", "i2.png: ef"]
    described, said = read(tmp_path / "out")
    assert said["i1"] == {**expected[1]["i1"], "grade": (1,)} and described["image_outputs"]["ef"]["range"] == [0, 10]
    file = next((tmp_path / "source" / "labels").glob("*/i1.txt"))
    file.write_text("0 0.9 0.5 0.4 0.2\n" + file.read_text())  # reaches out, which our reader takes and convert clips
    file.write_text(file.read_text().replace("ef: 2.0", "ef: 200"))
    case = run("--min-images", 1)["annotation that cannot be read"]
    assert re.fullmatch(r"source/labels/\w+/i1.txt:5: `ef` is 200, outside its range 0 to 100: correct either", case[0])


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--output", "view"], "write NAME=COLUMN[:KIND], such as view=View"),
        (["--output", "=View"], "'' is no name of an image output"),
        (["--output", "2d=View"], "'2d' is no name of an image output"),
        (["--output", "boxes=View"], "'boxes' cannot name an image output"),
        (["--output", "ef=EF:value"], "a value needs its unit, its lowest and its highest number: ef=EF:value:percent:0:100"),
        (["--output", "ef=EF:value:percent:100:0"], "a value needs its unit"),
        (["--output", "ef=EF:value:percent:0:nan"], "a value needs its unit"),
        (["--output", "ef=EF:value:percent:0:inf"], "write [lowest, highest]"),
        (["--output", "view=View:classes:a,a"], "must be different ones"),
        (["--output", "class=View:labels"], "`class` is the output of classification_names"),
        (["--output", "Ef=EF", "--output", "ef=EF"], "--output ef is given twice"),
        (["--output", "class=View", "--image-class", "a"], "--output class=... and --image-class are two sources of the class"),
        (["--csv-image", "x"], "--csv-image goes with --output"),
    ],
)
def test_flags_that_cannot_be_used(capsys, flags, reason):
    with pytest.raises(SystemExit):
        parse_options(["source", "out", *flags])
    assert reason in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ("v=Viw", "t.csv:1: no column for `Viw` among image, View, EF: correct --output v"),
        ("v=View:clases", "(the kinds are classes, labels, value)"),
        ("v=View,EF", "no column for `View,EF` among image, View, EF"),
        ("v=View,Viw:labels", "no column for `Viw`"),
        ("v=View,EF:labels:a,b,c", "2 columns must be different, with a name for each or none"),
        ("v=View:value:mm:0:9", "`v`: no image has a number from 0 to 9: correct --output v. entry that its image output"),
        ("v=View:labels:q", "`v`: no label is left; images by label: x 1, y 1; a label needs 1 (--min-images)"),
        ("v=View:classes:q", "`v`: no image class is left"),
        ("v=EF,View:labels", "`v`: no label is left; images by label: none"),
    ],
)
def test_a_wish_that_nothing_fulfils_is_one_line_and_nothing_is_written(table, tmp_path, wish, reason):
    with pytest.raises(ConversionError, match=re.escape(reason)) as error:
        table({"View": ["x", "y"], "EF": ["1", "2"]}, "--output", wish)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_output_needs_a_table(run, tmp_path):  # noqa: F811
    write_voc(tmp_path / "source", {"a": "", "b": ""})
    with pytest.raises(ConversionError, match="--output reads columns of a table, and there is none: name it by --classes-csv"):
        run("--output", "v=View")


def test_the_image_column_and_the_class_of_another_source(table, run, tmp_path):  # noqa: F811
    for n in range(4):
        stem = tmp_path / "source" / "ab"[n % 2] / f"{n}"
        draw(stem.with_suffix(".png")).with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "source" / "classes.txt").write_text("cell\n")
    (tmp_path / "t.csv").write_text("Bild;EF\n" + "".join(f"{n};{n},5\n" for n in range(4)))
    flags = "--classes-csv", "t.csv", "--output", "ef=EF:value:percent:0:100", "--classes-from", "folder"
    with pytest.raises(ConversionError, match="no column for the image among Bild, EF: name it by --csv-image COLUMN"):
        run(*flags)
    assert run(*flags, "--csv-image", "Bild", "--val-share", 0.5) == {}
    assert read(tmp_path / "out")[1] == {f"{n}": {"class": (n % 2,), "ef": (n + 0.5,)} for n in range(4)}


@pytest.mark.parametrize("seed", range(3))
def test_a_drawn_split_shares_out_rare_labels_and_the_range(table, tmp_path, seed):
    def in_val() -> list[tuple[float, ...]]:
        val = {file.stem for file in (tmp_path / "out" / "labels" / "val").iterdir()}
        return [said["v"] for stem, said in read(tmp_path / "out")[1].items() if stem in val]

    flags = "--val-share", 0.5, "--seed", seed, "--output"
    table({"X": ["a", "a; rare", "none", "a", "a"] * 4}, *flags, "v=X:labels")
    assert sum(rare for _, rare in in_val()) == 2 and sum(target == (0, 0) for target in in_val()) == 2
    table({"X": [f"{n}" for n in range(20)]}, *flags, "v=X:value:mm:0:100")
    assert all(sum(5 * n <= value < 5 * n + 5 for (value,) in in_val()) in (2, 3) for n in range(4))


_word = (
    st.text(st.sampled_from("abzé京 7.-'#=&\"["), min_size=1, max_size=6)
    .map(lambda text: " ".join(text.split()))
    .filter(
        lambda text: text and not text.startswith("[") and text.lower() not in ("nan", "none") and text.lower() not in "ynft1.0"
    )
)
_number = st.floats(-50, 50)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(
        st.tuples(st.none() | _word, st.none() | st.lists(_word, unique=True, max_size=3), st.none() | _number),
        min_size=3,
        max_size=6,
    ).filter(lambda rows: all(any(row[place] for row in rows) for place in (0, 1)) and any(row[2] is not None for row in rows)),
    separator=st.sampled_from(",;\t|"),
)
def test_what_a_table_says_is_read_back(rows, separator):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_voc(root / "source", {f"i{n}": "" for n in range(len(rows))})
        with (root / "t.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, delimiter=separator)
            writer.writerow(["image", "view", "finding", "value"])
            for n, (view, labels, number) in enumerate(rows):
                named = "" if labels is None else json.dumps(labels) if n % 2 else "; ".join(labels) or "none"
                writer.writerow([f"i{n}", view or "", named, "" if number is None else repr(number)])
        wishes = "view=view", "finding=finding:labels", "v=value:value:mm:-50:50"
        flags = [word for wish in wishes for word in ("--output", wish)]
        options = [str(root / "source"), str(root / "out"), "--classes-csv", str(root / "t.csv"), "--min-images", "1", *flags]
        convert(parse_options(options))
        described, said = read(root / "out")
        views, labels = (described["image_outputs"][name][kind] for name, kind in (("view", "classes"), ("finding", "labels")))
        assert Value.from_description("v", described["image_outputs"]["v"]) == Value("v", "mm", -50.0, 50.0)
        for n, (view, some, number) in enumerate(rows):
            found = said[f"i{n}"]
            assert (views[int(found["view"][0])] if "view" in found else None) == view
            there = {label for label, mark in zip(labels, found["finding"], strict=True) if mark} if "finding" in found else None
            assert there == (None if some is None else set(some))
            assert found.get("v") == (None if number is None else (number,))
