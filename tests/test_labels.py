"""Label files: what is accepted, what is refused and in which words, and that nothing is ever lost in between."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gradnorm_plugin.labels import (
    Box,
    LabelError,
    LabelErrors,
    LabelRecord,
    Polygon,
    parse_label_text,
    read_label_file,
    write_label_file,
)

BOX_LINE = "1 0.5 0.5 0.25 0.25"
BOX = Box(1, 0.5, 0.5, 0.25, 0.25)


def parse(text: str, num_image_classes: int = 3) -> LabelRecord:
    return parse_label_text(text, 4, num_image_classes)


@pytest.mark.parametrize(
    ("text", "num_image_classes", "expected"),
    [
        ("", 3, LabelRecord()),
        (" \n\t\n", 3, LabelRecord()),
        (BOX_LINE, 3, LabelRecord((BOX,))),
        ("0 1 0", 3, LabelRecord(image_class=1)),
        (f"\n{BOX_LINE}\n\n \n  0 0\t1  \n\n", 3, LabelRecord((BOX,), image_class=2)),
        (f"{BOX_LINE}\r\n\r\n1 0 0\r\n", 3, LabelRecord((BOX,), image_class=0)),
        (f"{BOX_LINE}\r1 0 0\r", 3, LabelRecord((BOX,), image_class=0)),
        ("2.0 1 1.0 +1e0 .5", 3, LabelRecord((Box(2, 1, 1, 1, 0.5),))),
        ("0 0 0 1 1 0 1\n0 1 0", 3, LabelRecord((), (Polygon(0, ((0, 0), (1, 1), (0, 1))),), 1)),
        ("1", 1, LabelRecord(image_class=0)),
        ("0 0 0 0 1", 5, LabelRecord(image_class=4)),
        ("0 0 0 1 1", 3, LabelRecord((Box(0, 0, 0, 1, 1),))),
        ("0 0 0 1.0 1.0", 5, LabelRecord((Box(0, 0, 0, 1, 1),))),
        ("0 0 0 1 1\n0 0 0 0 1", 5, LabelRecord((Box(0, 0, 0, 1, 1),), image_class=4)),
        ("0 1 0 0 0 0 0", 7, LabelRecord(image_class=1)),
    ],
)
def test_valid_text(text: str, num_image_classes: int, expected: LabelRecord) -> None:
    assert parse(text, num_image_classes) == expected


@pytest.mark.parametrize(
    ("text", "num_image_classes", "line", "reason"),
    [
        ("0 1 0\n0 0 1", 3, 1, "given once"),
        (f"0 1 0\n{BOX_LINE}", 3, 1, "the image's class is the last line"),
        ("0 1 0 0", 3, 1, "of 4 values, but classification_names has 3"),
        ("0 0 0 0 1", 3, 1, "of 5 values, but classification_names has 3"),
        ("1", 3, 1, "of 1 values, but classification_names has 3"),
        ("0 1 0", 0, 1, "no classification_names"),
        ("\n\n0 1 1", 3, 3, "with 2 ones"),
        ("0 0 0", 3, 1, "with 0 ones"),
        ("0", 1, 1, "with 0 ones"),
        ("0 0 0 1 1", 5, 1, "with 2 ones: write exactly one 1 (if it is a box or polygon, write 1.0 for 1)"),
        ("0 2 0", 3, 1, "3 values: expected"),
        ("0.0 1.0 0.0", 3, 1, "3 of plain 0 and 1 with exactly one 1"),
        ("4 0.5 0.5 0.1 0.1", 3, 1, "class 4 is outside names (4 classes, 0 to 3)"),
        ("-1 0.5 0.5 0.1 0.1", 3, 1, "class -1 is outside names"),
        ("1.5 0.5 0.5 0.1 0.1", 3, 1, "class 1.5 is not a whole number"),
        ("1e999 0.5 0.5 0.1 0.1", 3, 1, "class 1e999 is not a whole number"),
        ("car 0.5 0.5 0.1 0.1", 3, 1, "class `car` is not a number"),
        (f"{BOX_LINE}\n0 0.5 1.01 0.1 0.1", 3, 2, "coordinate 1.01 is outside 0..1"),
        ("0 0.5 -0.1 0.1 0.1", 3, 1, "coordinate -0.1 is outside 0..1"),
        ("0 0.5 1e999 0.1 0.1", 3, 1, "coordinate 1e999 is outside 0..1"),
        ("0 0.5 nan 0.1 0.1", 3, 1, "coordinate `nan` is not a number"),
        ("0 0.5 inf 0.1 0.1", 3, 1, "coordinate `inf` is not a number"),
        ("0 0.5 0_1 0.1 0.1", 3, 1, "coordinate `0_1` is not a number"),
        ("0, 0.5, 0.5, 0.1, 0.1", 3, 1, "class `0,` is not a number"),
        ("0 0.5 0.5 0 0.1", 3, 1, "a box without area (w 0, h 0.1)"),
        ("0 0.5 0.5 0.1 0.1 0.9", 3, 1, "6 values (is the sixth a confidence? remove it)"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.1 0.4", 3, 1, "8 values: expected"),
        ("0 0.1 0.1 0.1 0.2 0.1 0.3", 3, 1, "a polygon without area"),
        ("0 0.1 0.1 0.2 0.2 0.1 0.2\n0 0.5 0.5 0.1 0.1", 3, 2, "boxes and polygons in one file"),
        (f"\ufeff{BOX_LINE}", 3, 1, "U+FEFF is not plain text"),
        (f"{BOX_LINE}\n0\u00a00.5 0.5 0.1 0.1", 3, 2, "U+00A0 is not plain text"),
        ("0 .1 .1 .2 .2\x0b0 .3 .3 .2 .2", 3, 1, "U+000B is not plain text"),
    ],
)
def test_wrong_text(text: str, num_image_classes: int, line: int, reason: str) -> None:
    with pytest.raises(LabelError) as caught:
        parse_label_text(text, 4, num_image_classes, "labels/x.txt")
    assert caught.value.line == line
    assert str(caught.value).startswith(f"labels/x.txt:{line}: ")
    assert reason in str(caught.value)


def test_unbounded_box_classes() -> None:
    assert parse_label_text("79 0.5 0.5 0.1 0.1", None, 3).boxes[0].class_index == 79
    with pytest.raises(LabelError, match="class -1 is outside names: "):
        parse_label_text("-1 0.5 0.5 0.1 0.1", None, 3)


def test_missing_file_is_background(tmp_path: Path) -> None:
    assert read_label_file(tmp_path / "none.txt", 4, 3) == LabelRecord()


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf0 1 0", b"0 1 0\n\xe9", "0 1 0".encode("utf-16"), b"\x00"])
def test_bytes_that_are_no_label_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(LabelError, match="is not plain text: save it as ASCII, without byte order mark") as caught:
        read_label_file(tmp_path / "x.txt", 4, 3)
    assert caught.value.line == content.count(b"\n") + 1


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="cannot be read: Is a directory") as caught:
        read_label_file(tmp_path, 4, 3)
    assert caught.value.line is None


def test_errors_list_the_first_twenty() -> None:
    errors = LabelErrors([LabelError(f"{index}.txt", 7, "bad") for index in range(23)])
    assert str(errors).splitlines()[0].startswith("23 label files are wrong")
    assert "  19.txt:7: bad" in str(errors) and "20.txt" not in str(errors)
    assert str(errors).endswith("... and 3 more")
    assert str(LabelErrors(errors.errors[:1])).startswith("1 label file is wrong")


def test_errors_cross_process_borders() -> None:
    copy = pickle.loads(pickle.dumps(LabelErrors([LabelError("x.txt", None, "bad")])))
    assert copy.errors[0].file == "x.txt" and str(copy).endswith("  x.txt: bad")


shares = st.floats(0, 1)
sizes = st.floats(0, 1, exclude_min=True)
boxes = st.builds(Box, st.integers(0, 3), shares, shares, sizes, sizes)
polygons = st.builds(Polygon, st.integers(0, 3), st.lists(st.tuples(shares, shares), min_size=3, max_size=6).map(tuple)).filter(
    lambda polygon: all(len(set(axis)) > 1 for axis in zip(*polygon.points, strict=True))
)


@st.composite
def records(draw: st.DrawFn) -> tuple[LabelRecord, int]:
    """A valid record and the number of image classes it is valid for."""
    num_image_classes = draw(st.integers(0, 8))
    objects = draw(st.one_of(st.lists(boxes, max_size=4), st.lists(polygons, max_size=3)))
    kind = "polygons" if objects and isinstance(objects[0], Polygon) else "boxes"
    classes = st.none() | st.integers(0, num_image_classes - 1) if num_image_classes else st.none()
    return LabelRecord(image_class=draw(classes), **{kind: tuple(objects)}), num_image_classes


@given(case=records())
@example(case=(LabelRecord((Box(0, 0.0, 0.0, 1.0, 1.0),)), 5))  # zeros and ones, as long as the one-hot line
@example(case=(LabelRecord((), (Polygon(0, ((0.0, 1.0), (1.0, 0.0), (1.0, 1.0))),)), 7))
def test_round_trip(case: tuple[LabelRecord, int], tmp_path_factory: pytest.TempPathFactory) -> None:
    record, num_image_classes = case
    path = tmp_path_factory.getbasetemp() / "round_trip.txt"
    write_label_file(path, record, 4, num_image_classes)
    assert read_label_file(path, 4, num_image_classes) == record


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (LabelRecord(image_class=3), "image class 3 is not one of the 3"),
        (LabelRecord(image_class=-1), "image class -1 is not one of the 3"),
        (LabelRecord((Box(0, 0.5, float("nan"), 0.1, 0.1),)), "`nan` is not a number"),
        (LabelRecord((BOX,), (Polygon(0, ((0, 0), (1, 1), (0, 1))),)), "boxes and polygons"),
    ],
)
def test_writer_refuses_what_the_reader_would(tmp_path: Path, record: LabelRecord, reason: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text("0 1 0\n")
    with pytest.raises(LabelError, match=reason):
        write_label_file(path, record, 4, 3)
    assert path.read_text() == "0 1 0\n"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    path.write_text("0 1 0\n")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_label_file(path, LabelRecord((BOX,)), 4, 3)
    assert path.read_text() == "0 1 0\n" and list(tmp_path.iterdir()) == [path]


fields = st.sampled_from(["0", "1", "0.0", "1.0", "0.5", "0.25", "2", "-1", "nan", "x", "1e-3"])
lines = st.one_of(
    st.lists(fields, max_size=9).map(" ".join),
    st.lists(st.sampled_from("01"), min_size=3, max_size=7).map(" ".join),
    st.just(BOX_LINE),
)
texts = st.lists(lines, max_size=5).flatmap(
    lambda rows: st.sampled_from(["\n", "\r\n", "\n\n", "\r", " \n\t"]).map(lambda end: end.join(rows))
)


@given(text=st.one_of(st.text(), texts), num_image_classes=st.integers(0, 7))
def test_no_line_is_dropped(text: str, num_image_classes: int) -> None:
    """Every non-blank line is in the record, value for value and in order, or the whole text is refused."""
    try:
        record = parse(text, num_image_classes)
    except LabelError as error:
        assert 1 <= error.line <= len(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
        return
    found = [[box[0], *box[1:]] for box in record.boxes]
    found += [[polygon[0], *(v for point in polygon.points for v in point)] for polygon in record.polygons]
    if record.image_class is not None:
        found.append([float(index == record.image_class) for index in range(num_image_classes)])
    assert found == [[float(field) for field in row.split()] for row in text.splitlines() if row.split()]


@given(content=st.binary(max_size=60))
def test_any_bytes_give_a_record_or_a_label_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes(content)
    try:
        assert isinstance(read_label_file(path, 4, 3), LabelRecord)
    except LabelError as error:
        assert error.file == str(path) and error.line is not None


def test_a_link_to_nothing_is_no_background(tmp_path):
    (tmp_path / "x.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(LabelError, match=r"x.txt: is a link to nothing: mend or remove it"):
        read_label_file(tmp_path / "x.txt", 2, 2)
