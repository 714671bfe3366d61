"""The report of a training run: its sections in their order, and the `report` command that writes it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from gradnorm_plugin.files import explain, write_text
from gradnorm_plugin.report.blocks import Block, Gallery, Missing, Report, Section, pictures
from gradnorm_plugin.report.configuration import data_section, model_section, run_section, settings_section
from gradnorm_plugin.report.dynamics import batches_section, interference_section, losses_section, weights_section
from gradnorm_plugin.report.final import final_section
from gradnorm_plugin.report.headline import limits, tiles
from gradnorm_plugin.report.render import LABELS, render_html, render_markdown
from gradnorm_plugin.report.wording import LANGUAGES, Wording
from gradnorm_plugin.run_folder import ReportError, RunFiles, read_run
from gradnorm_plugin.terminal import fail, parse

EXAMPLES = ("train_batch0.jpg", "val_batch0_labels.jpg", "val_batch0_pred.jpg")


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
        ReportError: if `run` is not a run's folder, or a file in it cannot be used. Nothing is written then.
        ValueError: if there are no texts for `lang`.
        OSError: if `out` cannot be written.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"lang is {lang!r}, expected one of {', '.join(LANGUAGES)}")
    folder = run if out is None else out
    found = read_run(run)
    say = Wording(lang, found.tasks)
    report = compose(found, say)
    pages = {"report.md": render_markdown(report, say, folder), "report.html": render_html(report, say)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        write_text(folder / name, text)
    return [folder / name for name in pages]


def compose(run: RunFiles, say: Wording) -> Report:
    """The whole report; a section whose file is missing says so.

    Raises:
        ReportError: if a file does not hold what training writes there.
    """
    return Report(
        language=say.language,
        title=say("page.title", name=run.folder.resolve().name),
        subtitle=say("page.subtitle"),
        tiles=tiles(run, say),
        limits_title=say("limits.title"),
        limits=limits(run, say),
        sections=[
            run_section(run, say),
            model_section(run, say),
            data_section(run, say),
            batches_section(run, say),
            weights_section(run, say),
            losses_section(run, say),
            interference_section(run, say),
            final_section(run, say),
            pictures_section(run, say),
            settings_section(run, say),
        ],
        labels={label: say(f"page.{label}") for label in LABELS},
    )


def pictures_section(run: RunFiles, say: Wording) -> Section:
    """Batches as the network saw them, and its predictions for the validation images."""
    found = pictures(run.folder, EXAMPLES, say)
    blocks: list[Block] = [Gallery(found)] if found else []
    absent = [name for name in EXAMPLES if not (run.folder / name).is_file()]
    if absent:
        blocks.append(Missing(say("missing.pictures", files=say.listed(absent))))
    return Section("pictures", say("pictures.title"), blocks)
