"""What the task weights did, and whether they brought the tasks' gradients nearer to each other."""

from __future__ import annotations

import math

from gradnorm_plugin.report.blocks import Block, Picture, Points, Section, Small, Table, Text
from gradnorm_plugin.report.describe import missing
from gradnorm_plugin.report.files import RunFiles
from gradnorm_plugin.report.records import Rows
from gradnorm_plugin.report.summary import SAME, direction, finite, middle
from gradnorm_plugin.report.wording import Wording, count, figure

TASKS = ("detection", "classification")
CLIP = 10.0
"""YOLOv5's `clip_grad_norm_(..., max_norm=10.0)`."""


def weights_section(run: RunFiles, say: Wording) -> Section:
    """What the task weights did, and whether they brought the tasks' gradients nearer to each other."""
    blocks: list[Block] = []
    if run.updates is None:
        blocks += _without_updates(run, say)
    else:
        blocks += [Points(_weight_points(run, say)), _weight_table(run.updates, say)]
        blocks.append(Small(say("weights.rule", same=say.limit(SAME))))
    picture = run.folder / "gradnorm.png"
    if picture.is_file():
        blocks.append(Picture(picture, say("picture.gradnorm")))
    return Section("weights", say("weights.title"), blocks)


def _without_updates(run: RunFiles, say: Wording) -> list[Block]:
    balancer = run.options and run.options.text("balancer")
    if balancer != "fixed":
        return [missing(run, say, "updates")]
    if run.epochs is None:
        return [Points([say("weights.fixed")]), missing(run, say, "epochs")]
    points = [say("weights.fixed")]
    for task in TASKS:
        used = finite(run.epochs.numbers(f"{task}_weight"))
        if used:
            values = {"task": say.plain(f"task.{task}"), "low": figure(min(used)), "high": figure(max(used)), "epochs": len(used)}
            points.append(say("weights.constant" if min(used) == max(used) else "weights.moved", **values))
    return [Points(points)]


def _weight_points(run: RunFiles, say: Wording) -> list[Text]:
    updates = run.updates
    steps, weights = updates.texts("step"), {task: updates.numbers(f"{task}_weight") for task in TASKS}
    points = []
    if len(updates) == 1:
        values = {f"{task}_weight": figure(weights[task][0]) for task in TASKS}
        points.append(say("weights.single", step=steps[0], **values))
    else:
        for task in TASKS:
            used = finite(weights[task])
            if not used:
                continue
            values = {"first": used[0], "last": used[-1], "low": min(used), "high": max(used)}
            points.append(
                say(
                    f"weights.{direction(used[0], used[-1])}",
                    task=say.plain(f"task.{task}"), count=count(len(used)), start=steps[0], end=steps[-1],
                    **{name: figure(value) for name, value in values.items()},
                )
            )  # fmt: skip
        points += _sum_point(weights, say) + _range_points(run, weights, say)
    points += _norm_points(updates, weights, say)
    return points


def _sum_point(weights: dict[str, list[float]], say: Wording) -> list[Text]:
    """The weights start as they are given and sum to S from the first update on: that jump is no finding of GradNorm."""
    sums = finite(sum(pair) for pair in zip(*weights.values(), strict=True))
    if len(sums) < 2:
        return []
    first, *later = sums
    if max(later) - min(later) > SAME * abs(later[0]) or direction(first, later[0]) == "held":
        return []
    return [say("weights.sum", first=figure(first), later=figure(later[0]))]


def _range_points(run: RunFiles, weights: dict[str, list[float]], say: Wording) -> list[Text]:
    """How often a weight stood at an end of its range, where `run.json` tells the ranges."""
    ranges = run.facts.record("balancing").pairs("weight_ranges") if run.facts is not None else []
    points = []
    for task, bounds in zip(TASKS, ranges, strict=False):
        if bounds[0] == bounds[1]:  # the weight of a reference task is always 1
            continue
        later = weights[task][1:]  # the first measurement still has the initial weight
        ends = [sum(math.isclose(weight, end, rel_tol=1e-5) for weight in later) for end in bounds]
        values = {"low": figure(bounds[0]), "high": figure(bounds[1]), "at_low": count(ends[0]), "at_high": count(ends[1])}
        key = "weights.range" if any(ends) else "weights.range_never"
        points.append(say(key, task=say.plain(f"task.{task}"), count=count(len(later)), **values))
    return points


def _norm_points(updates: Rows, weights: dict[str, list[float]], say: Wording) -> list[Text]:
    detection, classification = (updates.numbers(f"{task}_norm") for task in TASKS)
    bare = [c / d if d else math.nan for d, c in zip(detection, classification, strict=True)]
    pairs = zip(bare, weights["detection"], weights["classification"], strict=True)
    weighted = [ratio * c / d if d else math.nan for ratio, d, c in pairs]
    points = []
    before, after = middle(bare), middle(weighted)
    if before > 0 and after > 0:
        nearer = "nearer" if abs(math.log(after)) < abs(math.log(before)) else "not_nearer"
        points.append(say(f"weights.{nearer}", before=figure(before), after=figure(after)))
    for part in ("detection", "head"):
        norms = finite(updates.numbers(f"{part}_norm_before_clip"))
        if norms:
            above = sum(norm > CLIP for norm in norms)
            points.append(
                say(
                    f"weights.clip_{part}",
                    clip=figure(CLIP), median=figure(middle(norms)), above=count(above), count=count(len(norms)),
                    share=say.percent(above / len(norms)),
                )
            )  # fmt: skip
    return points


def _weight_table(updates: Rows, say: Wording) -> Table:
    rows = []
    for quantity in ("weight", "loss", "norm"):
        for task in TASKS:
            used = finite(updates.numbers(f"{task}_{quantity}"))
            if used:
                rows.append(
                    [
                        say(f"weights.{quantity}", task=say.plain(f"task.{task}")),
                        *(figure(value) for value in (used[0], min(used), middle(used), max(used), used[-1])),
                    ]
                )
    head = [say(f"weights.{name}") for name in ("what", "first", "lowest", "median", "highest", "last")]
    return Table(say("weights.caption", count=count(len(updates))), head, rows)
