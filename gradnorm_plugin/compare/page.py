"""The whole page of a comparison, in the order in which a reader decides."""

from __future__ import annotations

from gradnorm_plugin.compare.details import curves_section, predictions_section, run_section
from gradnorm_plugin.compare.latency import Latency
from gradnorm_plugin.compare.outcome import Outcome
from gradnorm_plugin.compare.sections import cost_section, differences_section, figures_section, gradients_section
from gradnorm_plugin.compare.summary import limits, summary_section, tiles
from gradnorm_plugin.report.blocks import Report, Section
from gradnorm_plugin.report.render import LABELS
from gradnorm_plugin.report.wording import Wording


def compose_comparison(
    outcome: Outcome, latency: Latency | None, reason: str | None, say: Wording, predictions: bool = False
) -> Report:
    """All sections; without a finished run only those that need none.

    `reason` says why `latency` could not be measured; None if it was, or is for later. `predictions`: whether those of the report
    that this project started from are judged.
    """
    sections: list[Section] = [summary_section(outcome, say, predictions)]
    if outcome.methods:
        sections += [
            figures_section(outcome, say),
            differences_section(outcome, say),
            cost_section(outcome, latency, reason, say),
            gradients_section(outcome, say),
            *([predictions_section(outcome, say)] if predictions else []),
            curves_section(outcome, say),
        ]
    return Report(
        language=say.language,
        title=say("compare.title", name=outcome.root.resolve().name),
        subtitle=say("compare.subtitle"),
        tiles=tiles(outcome, say, predictions),
        limits_title=say("compare_limits.title"),
        limits=limits(outcome, say),
        sections=[*sections, run_section(outcome, say)],
        labels={**{label: say(f"page.{label}") for label in LABELS}, "footer": say("compare.footer")},
    )
