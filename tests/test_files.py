"""Whole files: complete or not there, never through a link, and read only where they are files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from run_folder import write_run

from gradnorm_plugin.compare.plan import CompareError, read_plan
from gradnorm_plugin.evaluation.summary import write_json
from gradnorm_plugin.files import (
    UnfinishedFile,
    WriteError,
    read_bytes,
    remove_leftovers,
    replace_links,
    whole_file,
    write_text,
)
from gradnorm_plugin.labels import Box, LabelRecord, write_label_file
from gradnorm_plugin.report.compose import write_report
from gradnorm_plugin.report.run_files import ReportError, read_facts, read_run
from gradnorm_plugin.training.figures import draw
from gradnorm_plugin.training.tables import RunTable


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_whatever_ends_the_writing_nothing_is_left(tmp_path, interruption):
    file = tmp_path / "table.csv"
    file.write_text("good")
    with pytest.raises(interruption), whole_file(file) as partial:
        partial.write_text("half")
        raise interruption
    assert file.read_text() == "good" and names(tmp_path) == ["table.csv"]


def test_a_new_file_has_the_permissions_that_the_user_asked_for_and_keeps_them(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "new", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o600)
    write_text(tmp_path / "new", "y")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_the_longest_name_that_a_folder_takes_can_be_written_and_a_longer_one_is_one_error(tmp_path):
    write_text(tmp_path / ("x" * 255), "x")
    with pytest.raises(WriteError, match=r"cannot be written: File name too long; take a shorter name"):
        write_text(tmp_path / ("x" * 256), "x")
    assert names(tmp_path) == ["x" * 255]


def test_a_folder_in_the_way_is_one_error(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(WriteError, match=r"page\.html cannot be written: Is a directory"):
        write_text(tmp_path / "page.html", "x")
    assert names(tmp_path) == ["page.html"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_is_written_with_the_line_ends_that_it_has_whatever_the_characters(tmp_path, end):
    write_text(tmp_path / "t", f"a{end}臺灣 \udcff")
    assert (tmp_path / "t").read_bytes() == f"a{end}臺灣 \\udcff".encode()


def _save_figure(path: Path) -> None:
    from matplotlib.figure import Figure

    draw(Figure, path)


WRITERS = {
    "a table of the run": ("gradnorm.csv", lambda path: RunTable(path, ("epoch",)).write()),
    "JSON": ("joint_metrics.json", lambda path: write_json({}, path)),
    "a label": ("1.txt", lambda path: write_label_file(path, LabelRecord((Box(0, 0.5, 0.5, 0.5, 0.5),)), 1, 0)),
    "a figure": ("joint_results.png", _save_figure),
    "a text": ("compare.yaml", lambda path: write_text(path, "x")),
}


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
@pytest.mark.parametrize("writer", WRITERS)
def test_what_lies_at_the_name_of_a_file_is_replaced_and_not_written_through(tmp_path, writer, kind):
    name, write = WRITERS[writer]
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    if kind == "link":
        outside.write_text("precious")
    if kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(outside)
    write(folder / name)
    assert stat.S_ISREG(os.lstat(folder / name).st_mode)
    assert outside.read_text() == "precious" if kind == "link" else not outside.exists()


def test_a_report_leaves_alone_what_the_links_of_a_strangers_run_point_to(tmp_path):
    run, victim = write_run(tmp_path / "run"), tmp_path / "victim"
    victim.write_text("precious")
    for name in ("report.md", "report.html"):
        for link in (name, f"{name}.partial", f".{name}.partial", f"{name}.tmp", f"{name}.{os.getpid()}.partial"):
            (run / link).symlink_to(victim)
    pages = write_report(run)
    assert victim.read_text() == "precious"
    assert all(page.is_file() and not page.is_symlink() for page in pages)


def test_a_folder_that_is_a_link_is_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write_text(tmp_path / "out" / "page.md", "x")
    assert names(tmp_path / "disk") == ["page.md"]


def test_leftovers_of_a_killed_process_go_and_nothing_else(tmp_path):
    UnfinishedFile(tmp_path / "last.pt")
    UnfinishedFile(tmp_path / "figure.png")
    (tmp_path / "notes.partial").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["notes.partial"]


def test_links_to_files_become_files_of_the_folder_s_own(tmp_path):
    folder, outside = tmp_path / "run", tmp_path / "outside.csv"
    folder.mkdir()
    outside.write_text("epoch\n0\n")
    (folder / "results.csv").symlink_to(outside)
    (folder / "gone.csv").symlink_to(tmp_path / "nowhere")
    (folder / "weights").symlink_to(tmp_path)
    replace_links(folder)
    with (folder / "results.csv").open("a") as file:  # as YOLOv5 adds a row
        file.write("1\n")
    assert outside.read_text() == "epoch\n0\n" and (folder / "results.csv").read_text() == "epoch\n0\n1\n"
    assert names(folder) == ["results.csv", "weights"]


def test_a_pipe_a_device_and_a_file_without_end_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            read_bytes(path)
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(OSError) as raised:
        read_bytes(tmp_path / "large", limit=10)
    assert raised.value.errno == errno.EFBIG


@pytest.mark.parametrize("name", ["run.json", "compare.yaml"])
def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert read_facts(tmp_path) == {}
    with pytest.raises(CompareError):
        read_plan(tmp_path)


DEEP = "[" * 100_000
DAMAGED = {"nested": DEEP, "number": '{"seconds": ' + "1" * 5000 + "}", "text": "not json", "bytes": "\udcff", "list": "[1]"}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", ["run.json", "joint_metrics.json"])
def test_json_that_is_damaged_is_one_error_that_names_the_file(tmp_path, name, damage):
    write_run(tmp_path)
    (tmp_path / name).write_bytes(DAMAGED[damage].encode("utf-8", "surrogateescape"))
    with pytest.raises(ReportError, match=name):
        read_run(tmp_path)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize("text", ["a: 2024-13-45", "a: [", "- 1", "a: &a [*a", "[" * 1500, BOMB])
def test_yaml_that_is_damaged_is_one_error_that_names_the_file(tmp_path, text):
    write_run(tmp_path)
    (tmp_path / "opt.yaml").write_text(text)
    with pytest.raises(ReportError, match=r"opt\.yaml"):
        read_run(tmp_path)
