"""`report RUN`: `report.md` and `report.html` from what a training run left in its folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gradnorm_plugin.files import explain, write_text
from gradnorm_plugin.report.compose import compose
from gradnorm_plugin.report.files import read_run
from gradnorm_plugin.report.records import ReportError
from gradnorm_plugin.report.render import render_html, render_markdown
from gradnorm_plugin.report.wording import LANGUAGES, Wording
from gradnorm_plugin.terminal import fail, parse


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report with the flags of `argv` (default: the command line's). Status 1 and one message on bad input."""
    parser = argparse.ArgumentParser(
        prog="yolov5-gradnorm report", description="Write report.md and report.html from the files in a run's folder."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a training run, such as runs/train/exp")
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="language of the report (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to write (default: RUN)")
    options = parse(parser, argv)
    try:
        written = write_report(options.run, options.lang, options.output)
    except ReportError as error:
        fail(str(error))
    except OSError as error:
        fail(explain(error))
    for file in written:
        print(file)


def write_report(run: Path, lang: str = "en", out: Path | None = None) -> list[Path]:
    """Write `report.md` and `report.html` of the run in folder `run` into `out` (default: the same); returns their paths.

    Raises:
        ReportError: if `run` is no run's folder, or a file in it cannot be used. Nothing is written then.
        ValueError: if there are no texts for `lang`.
        OSError: if `out` cannot be written.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"lang is {lang!r}, expected one of {', '.join(LANGUAGES)}")
    folder = run if out is None else out
    say = Wording(lang)
    report = compose(read_run(run), say)
    pages = {"report.md": render_markdown(report, say, folder), "report.html": render_html(report, say)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        write_text(folder / name, text)
    return [folder / name for name in pages]
