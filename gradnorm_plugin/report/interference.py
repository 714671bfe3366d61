"""Whether the two tasks pull the shared layers in opposite directions: the cosine between their gradients."""

from __future__ import annotations

from statistics import fmean

from gradnorm_plugin.report.blocks import Missing, Points, Section, Small, Table
from gradnorm_plugin.report.describe import missing
from gradnorm_plugin.report.files import RunFiles
from gradnorm_plugin.report.summary import finite, middle
from gradnorm_plugin.report.wording import Wording, count, figure

ORTHOGONAL = 0.1
"""A mean cosine no further from 0 is called nearly orthogonal."""
FEWEST = 9
"""Measurements from which on the run is also shown in thirds."""
COLUMNS = ("part", "count", "mean", "median", "lowest", "highest", "negative", "conflict")


def interference_section(run: RunFiles, say: Wording) -> Section:
    """Whether the two tasks pull the shared layers in opposite directions."""
    title = say("interference.title")
    if run.options is not None and run.options.text("backbone") == "dual":
        return Section("interference", title, [Missing(say("interference.dual"))])
    if run.updates is None:
        fixed = run.options is not None and run.options.text("balancer") == "fixed"
        return Section("interference", title, [Missing(say("interference.fixed")) if fixed else missing(run, say, "updates")])
    cosines = finite(run.updates.numbers("cosine"))
    if not cosines:
        return Section("interference", title, [Missing(say("interference.none"))])
    mean, negative = fmean(cosines), sum(cosine < 0 for cosine in cosines)
    verdict = "orthogonal" if abs(mean) <= ORTHOGONAL else ("agree" if mean > 0 else "oppose")
    points = [
        say(
            "interference.share",
            negative=count(negative), count=count(len(cosines)), share=say.percent(negative / len(cosines)),
        ),
        say(f"interference.{verdict}", mean=figure(mean)),
    ]  # fmt: skip
    thirds = [("all", cosines)]
    if len(cosines) >= FEWEST:
        cuts = [round(len(cosines) * part / 3) for part in range(4)]
        thirds += [(name, cosines[cuts[part] : cuts[part + 1]]) for part, name in enumerate(("first", "second", "third"))]
    rows = []
    for name, part in thirds:
        below = sum(cosine < 0 for cosine in part)
        values = (figure(value) for value in (fmean(part), middle(part), min(part), max(part)))
        rows.append([say(f"interference.{name}"), count(len(part)), *values, count(below), say.percent(below / len(part))])
    head = [say(f"interference.{name}") for name in COLUMNS]
    table = Table(say("interference.caption"), head, rows)
    return Section("interference", title, [Points(points), table, Small(say("interference.rule", limit=figure(ORTHOGONAL)))])
