"""Names from outside end harmless wherever they are shown: pages, tables, pictures, folders, the terminal."""

from __future__ import annotations

import csv
import io
import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from run_folder import facts, metrics, options, write_run

from gradnorm_plugin.evaluation.mosaics import answer_badges
from gradnorm_plugin.evaluation.plots import plot_confusion_matrix
from gradnorm_plugin.names import csv_row, folder_name, folder_names, on_screen, one_line, shortened
from gradnorm_plugin.outputs import class_output
from gradnorm_plugin.outputs.classes import classification_metrics
from gradnorm_plugin.predict.drawing import DetectedBox, ImageClass, Style, draw
from gradnorm_plugin.report.blocks import Points, Report, Section, Span, Table, Wording
from gradnorm_plugin.report.compose import render_html, render_markdown, write_report
from gradnorm_plugin.run_folder import CONFUSION_PICTURE
from gradnorm_plugin.terminal import fail, guard_log

NASTY = (
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "a|b",
    "`code`",
    "[x](javascript:alert(1))",
    "![x](http://example.org/x.png)",
    "https://example.org",
    "www.example.org",
    "# title",
    "- item",
    "1. item",
    "*bold*",
    "__b__",
    "{name}",
    "{0.__class__}",
    "%s %(x)d",
    "two\nlines\r\n",
    "\x1b]0;title\x07\x1b[2J",
    "a\u202egnp.exe",
    "\u2028",
    "\x00",
    "=cmd|' /C calc'!A0",
    "+1+2",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "../../etc/passwd",
    "C:\\x",
    "..",
    "con",
    "$\\frac$",
    "$x$ and $y",
    "[red]x[/red]",
    "x" * 400,
    "臺灣",
    "\udcff",
)

text = st.text(max_size=60) | st.sampled_from(NASTY) | st.tuples(st.sampled_from(NASTY), st.text(max_size=9)).map("".join)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Tags(HTMLParser):
    """What a browser makes of a page: every tag with its attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text.append(data)


SAY = Wording("en")
LABELS = {label: SAY(f"page.{label}") for label in ("contents", "headline", "tile", "value", "note", "footer", "paper", "yolov5")}


def page_of(names: list[str]) -> Report:
    """A report with each name in a sentence, at the beginning of one, and in each place of a table."""
    texts = [text for name in names for text in (SAY("page.title", name=name), (Span(one_line(name)),))]
    rows = [(name, name) for name in names] + [(text, text) for text in texts]
    title = SAY("page.title", name="x")
    return Report("en", title, title, (), title, (), (Section("s", title, (Points(texts), Table(title, rows[0], rows))),), LABELS)


@given(st.lists(text, min_size=8, max_size=8))
@settings(deadline=None, max_examples=8)
@example(list(NASTY))
def test_no_name_adds_a_tag_an_attribute_a_cell_a_heading_or_a_link_to_a_page(names):
    plain = ["plain"] * len(names)
    page, usual = (Tags(render_html(page_of(found), SAY)) for found in (names, plain))
    assert (page.tags, page.attributes) == (usual.tags, usual.attributes)
    lines, expected = (render_markdown(page_of(found), SAY, Path()).split("\n") for found in (names, plain))
    for line, pattern in zip(lines, expected, strict=True):
        assert not CONTROL.search(line)
        if "plain" not in pattern:
            assert line == pattern
            continue
        assert len(re.findall(r"(?<!\\)\|", line)) == pattern.count("|")
        assert not re.search(r"(?<!\\)[\[\]`]|<|>|https?://|\bwww\.", line)
        assert not re.match(r"- (#+|[-+*]|\d+[.)])( |$)", line)


@given(st.lists(text | st.integers() | st.floats(allow_nan=False), min_size=1, max_size=4))
def test_a_spreadsheet_finds_no_formula_and_every_number(row):
    line = io.StringIO()
    csv.writer(line).writerow(csv_row(row))
    (cells,) = csv.reader(io.StringIO(line.getvalue(), newline="")) if row != [""] else [row]
    for value, cell in zip(row, cells, strict=True):
        assert cell == str(value) or (isinstance(value, str) and cell == f"'{value}")
        if not isinstance(value, str):
            assert type(value)(cell) == value
        elif cell[:1] in set("=+-@\t\r"):
            float(cell)


@pytest.mark.parametrize("number", ["-0.25", "+3", "-1e-05", "-inf", "-7"])
def test_a_number_keeps_its_sign(number):
    assert csv_row([number]) == [number]


@given(text)
def test_a_folder_s_name_is_one_folder_on_every_system(name):
    folder = folder_name(name)
    assert Path("x", folder).parent == Path("x") and folder not in {"", ".", ".."}
    assert len(folder.encode()) <= 120 and not re.search(r'[\x00-\x1f<>:"/\\|?*]', folder)
    assert not re.fullmatch(r"(?i)(con|nul|aux|prn)(\..*)?", folder) and folder == folder.rstrip(" .")


def test_long_names_that_begin_alike_have_folders_of_their_own():
    assert folder_name("x" * 300) != folder_name("x" * 299 + "y")
    assert folder_name("left ventricle") == "left ventricle"


@given(st.lists(text))
def test_each_name_has_a_folder_of_its_own(names):
    folders = folder_names(names)
    assert set(folders) == set(names) and len({folder.casefold() for folder in folders.values()}) == len(folders)


def test_a_name_that_can_be_a_folder_s_is_one_whatever_comes_before_it():
    found = folder_names(["a/b", "a:b", "a_b", "A_b", "left"])
    assert found == {"a_b": "a_b", "A_b": "A_b-2", "left": "left", "a/b": "a_b-3", "a:b": "a_b-4"}


@given(text)
def test_a_terminal_obeys_no_name(name):
    assert not CONTROL.search(on_screen(name).replace("\x1b[", "") if re.search("\x1b\\[[0-9;]*m", name) else on_screen(name))
    assert not CONTROL.search(one_line(name)) and "\n" not in one_line(name) and len(shortened(name, 20)) <= 20


def test_errors_and_the_log_write_escapes_for_control_characters(capsys, caplog):
    with pytest.raises(SystemExit):
        fail("class \x1b]0;title\x07\u202e: line 1\nline 2 \x1b[31mred\x1b[0m")
    assert capsys.readouterr().err == "ERROR: class \\x1b]0;title\\x07\\u202e: line 1\nline 2 \x1b[31mred\x1b[0m\n"
    guard_log()
    logger = logging.getLogger("yolov5")
    logger.addHandler(caplog.handler)
    try:
        logger.warning("%22s", "\x1b[2Jname")
    finally:
        logger.removeHandler(caplog.handler)
    (line,) = caplog.messages
    assert line.strip() == "\\x1b[2Jname"


def test_names_are_no_formulas_in_the_confusion_matrix_and_long_ones_leave_room_for_it(tmp_path):
    names = ["$\\frac$", "$x$", "two\nlines", "x" * 400, "\x1b[2J"]
    probabilities = np.eye(5, dtype=np.float32)
    plot_confusion_matrix(classification_metrics(probabilities, np.arange(5)).confusion, names, tmp_path / CONFUSION_PICTURE)
    assert (tmp_path / CONFUSION_PICTURE).is_file()


@pytest.mark.parametrize("name", ["two\nlines", "x" * 400, "$x$", "\x1b[2J", ""])
def test_any_name_can_be_drawn(name):
    import torch

    image = np.zeros((64, 96, 3), np.uint8)
    drawn = draw(image, [DetectedBox(0, name, 0.5, 10, 10, 40, 40)], ImageClass(0, name, 0.9, {name: 0.9}), Style())
    assert drawn.shape == image.shape and drawn.any()
    badge = answer_badges((class_output([name, "b"]),), torch.tensor([[0.9, 0.1]]), {"class": torch.tensor([1])})[0]
    assert badge.text.count("\n") == 1 and len(badge.text) < 120


def test_a_report_of_a_run_with_nasty_names_says_them_and_does_nothing_else(tmp_path):
    names, classes = list(NASTY), list(reversed(NASTY))
    figures = metrics()
    row = figures["classification"]["classes"][0]
    figures["classification"] |= {
        "classes": [{**row, "name": name} for name in classes],
        "confusion": np.eye(len(classes)).tolist(),
    }
    row = figures["detection"]["classes"][0]
    figures["detection"]["classes"] = [{**row, "name": name} for name in names]
    found = facts()
    found["command"] = ["train.py", "--name", "$(touch x)", *NASTY]
    found["data"] |= {"names": names, "classification_names": classes, "yaml": "<b>|`.yaml"}
    for split in ("train", "val"):
        found["data"][split] |= {"boxes": [1] * len(names), "image_classes": [1] * len(classes)}
    run = write_run(tmp_path / "a|b<i>`{x}", opt=options(name="<i>", data="=x|`"), run=found, joint_metrics=figures)
    md, html = write_report(run)
    page = Tags(html.read_text(encoding="utf-8"))
    assert not {"script", "i", "b", "onerror", "onload"} & {*page.tags, *page.attributes}
    assert "<script>alert(1)</script>" in "".join(page.text)
    assert not CONTROL.search(md.read_text(encoding="utf-8"))
