"""What a comparison writes of the runs that are finished: tables, pictures, and a page that holds them all."""

from __future__ import annotations

from pathlib import Path

from gradnorm_plugin.compare.choice_plot import plot_choice
from gradnorm_plugin.compare.curves_plot import plot_curves
from gradnorm_plugin.compare.latency import LatencyError, measure_latency
from gradnorm_plugin.compare.outcome import read_outcome
from gradnorm_plugin.compare.page import compose_comparison
from gradnorm_plugin.compare.spreadsheets import write_methods, write_runs
from gradnorm_plugin.files import write_text
from gradnorm_plugin.report.render import render_html, render_markdown
from gradnorm_plugin.report.wording import LANGUAGES, Wording


def write_comparison(root: Path, lang: str = "en", predictions: bool = False) -> list[Path]:
    """Write everything into `root`, the folder of a comparison of which any number of runs is finished; returns the paths.

    `comparison.csv`, `runs.csv`, `comparison.md`, `comparison.html`, and once a run is finished `comparison` and `curves` as
    .png and .pdf. Nothing is guessed of a run that is missing. When none is, the networks are timed once (`latency.json`); what
    keeps them from it is said on the page. `predictions`: also those of the report that this project started from, beside what
    was measured.

    Raises:
        CompareError: if `root` is no comparison's folder.
        ReportError: if a file of a finished run cannot be used.
        ValueError: if there are no texts for `lang`.
        WriteError: if a file cannot be written.
    """
    if lang not in LANGUAGES:
        raise ValueError(f"lang is {lang!r}, expected one of {', '.join(LANGUAGES)}")
    outcome, say = read_outcome(root), Wording(lang)
    latency, reason = None, None
    try:
        latency = measure_latency(outcome)
    except LatencyError as error:
        reason = str(error)
    written = [write_methods(outcome, latency, root / "comparison.csv"), write_runs(outcome, root / "runs.csv")]
    written += plot_choice(outcome, latency) + plot_curves(outcome)
    report = compose_comparison(outcome, latency, reason, say, predictions)
    pages = {"comparison.md": render_markdown(report, say, root), "comparison.html": render_html(report, say)}
    for name, text in pages.items():
        write_text(root / name, text)
        written.append(root / name)
    return written
