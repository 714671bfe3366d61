"""What happened during the training: the first batches, the task weights, the losses, and how the tasks' gradients interfered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import combinations
from statistics import fmean, median

from gradnorm_plugin.report.blocks import (
    Block,
    Cell,
    Missing,
    Points,
    Section,
    Small,
    Table,
    Text,
    Wording,
    count,
    figure,
    measured,
    missing,
    pictures,
)
from gradnorm_plugin.report.run_files import Rows, RunFiles, best_epoch, finite
from gradnorm_plugin.run_folder import (
    BATCHES_FILE,
    DETECTION,
    DETECTION_FIGURES,
    EPOCHS_FILE,
    EPOCHS_PICTURE,
    UPDATES_FILE,
    UPDATES_PICTURE,
    ImageTasks,
    batch_figures,
    cosine_columns,
    loss_columns,
    task_names,
)

MOST_BATCHES, MOST_EPOCHS = 20, 12
"""Most rows of a table."""
SAME = 0.01
"""A change of no more than this share of the first value counts as none."""
CLIP = 10.0
"""YOLOv5's `clip_grad_norm_(..., max_norm=10.0)`."""
ORTHOGONAL = 0.1
"""A mean cosine no further from 0 is called nearly orthogonal."""
COSINE_COLUMNS = ("count", "mean", "median", "lowest", "highest", "negative", "conflict")
FEWEST = 9
"""With this many measurements the run is also shown in thirds."""


def batches_section(run: RunFiles, say: Wording) -> Section:
    """The lines that the screen showed during the first epoch."""
    title = say("batches.title")
    if not run.batches:
        return Section("batches", title, [missing(run.folder, BATCHES_FILE, say)])
    epochs, batch = run.batches.texts("epoch"), run.batches.texts("batch")
    first = [index for index, epoch in enumerate(epochs) if epoch == epochs[0]]
    shown = [first[index] for index in _spread(len(first), MOST_BATCHES)]
    columns = [run.batches.numbers(name) for name in batch_figures(run.tasks)]
    rows = [[batch[index], *(figure(column[index]) for column in columns)] for index in shown]
    of_tasks = [say.of_task(key, task) for key in ("batches.*", "batches.*_weight") for task in task_names(run.tasks)]
    head = (say("batches.batch"), say("batches.total"), *of_tasks, say("batches.cosine"))
    caption = say("batches.caption", epoch=epochs[0], shown=len(shown), all=len(first))
    return Section("batches", title, [Table(caption, head, rows), Small(say("batches.note"))])


def weights_section(run: RunFiles, say: Wording) -> Section:
    """What the task weights did, and whether they brought the tasks' gradients nearer to each other."""
    blocks: list[Block]
    if run.updates:
        points = [*_weight_points(run, run.updates, say), *_norm_points(run.updates, run.tasks, say)]
        blocks = [
            Points(points),
            _weight_table(run.updates, run.tasks, say),
            Small(say("weights.rule", same=say.percent(SAME, "g"))),
        ]
    elif not _is_fixed(run):
        blocks = [missing(run.folder, UPDATES_FILE, say)]
    else:
        blocks = [Points([say("weights.fixed"), *_fixed_points(run, say)])]
        blocks += [] if run.joint_epochs else [missing(run.folder, EPOCHS_FILE, say)]
    return Section("weights", say("weights.title"), [*blocks, *pictures(run.folder, [UPDATES_PICTURE], say)])


def _is_fixed(run: RunFiles) -> bool:
    return run.options.text("balancer") == "fixed"


def _fixed_points(run: RunFiles, say: Wording) -> Iterator[Text]:
    for task in task_names(run.tasks):
        used = run.joint_epochs.known(f"{task}_weight") if run.joint_epochs else []
        if used:
            low, high = min(used), max(used)
            values = {"task": say.task(task), "low": figure(low), "high": figure(high), "epochs": len(used)}
            yield say("weights.constant" if low == high else "weights.moved", **values)


def _weight_points(run: RunFiles, updates: Rows, say: Wording) -> Iterator[Text]:
    """How far each weight moved; of their sum; how often one stood at an end of its range, where `run.json` has the ranges."""
    steps, weights = updates.texts("step"), {task: updates.numbers(f"{task}_weight") for task in task_names(run.tasks)}
    if len(updates) == 1:
        values = {f"{task}_weight": figure(of[0]) for task, of in weights.items()}
        listed = say.listed(f"{say.task(task)} {figure(of[0])}" for task, of in weights.items())
        yield say("weights.single", step=steps[0], weights=listed, **values)
        return
    for task, of in weights.items():
        if used := finite(of):
            numbers = {"first": used[0], "last": used[-1], "low": min(used), "high": max(used)}
            values = {name: figure(number) for name, number in numbers.items()}
            values |= {"task": say.task(task), "count": count(len(used)), "start": steps[0], "end": steps[-1]}
            yield say(f"weights.{_direction(used[0], used[-1])}", **values)
    # From the first update on the weights sum to S, unlike the initial ones: GradNorm did not find that jump, it is set.
    first, *later = finite(map(sum, zip(*weights.values(), strict=True))) or [math.nan]
    if later and max(later) - min(later) <= SAME * abs(later[0]) and _direction(first, later[0]) != "held":
        yield say("weights.sum", first=figure(first), later=figure(later[0]))
    ranges = run.facts.record("balancing").pairs("weight_ranges")
    for (task, of), (low, high) in zip(weights.items(), ranges, strict=False):
        if low != high:  # the weight of a reference task is always 1
            later = of[1:]  # the first measurement still has the initial weight
            ends = [sum(math.isclose(weight, end, rel_tol=1e-5) for weight in later) for end in (low, high)]
            values = {"low": figure(low), "high": figure(high), "at_low": count(ends[0]), "at_high": count(ends[1])}
            key = "weights.range" if any(ends) else "weights.range_never"
            yield say(key, task=say.task(task), count=count(len(later)), **values)


def _norm_points(updates: Rows, tasks: ImageTasks, say: Wording) -> Iterator[Text]:
    """Of each image output's gradient beside detection's, without and with the weights; and what was clipped."""
    for task in tasks:
        norms, weights = ([updates.numbers(f"{name}_{of}") for name in (DETECTION, task.name)] for of in ("norm", "weight"))
        bare = [c / d if d else math.nan for d, c in zip(*norms, strict=True)]
        weighted = [ratio * c / d if d else math.nan for ratio, d, c in zip(bare, *weights, strict=True)]
        before, after = (median(finite(ratios) or [math.nan]) for ratios in (bare, weighted))
        if before > 0 and after > 0:
            nearer = "nearer" if abs(math.log(after)) < abs(math.log(before)) else "not_nearer"
            yield say(f"weights.{nearer}", task=say.task(task.name), before=figure(before), after=figure(after))
    for part in ("detection", "head"):
        if unclipped := updates.known(f"{part}_norm_before_clip"):
            above, of = sum(norm > CLIP for norm in unclipped), len(unclipped)
            values = {"above": count(above), "count": count(of), "share": say.percent(above / of)}
            yield say(f"weights.clip_{part}", clip=figure(CLIP), median=figure(median(unclipped)), **values)


def _weight_table(updates: Rows, tasks: ImageTasks, say: Wording) -> Table:
    rows: list[list[Cell]] = []
    for quantity in ("weight", "loss", "norm"):
        for task in task_names(tasks):
            if used := updates.known(f"{task}_{quantity}"):
                values = (used[0], min(used), median(used), max(used), used[-1])
                rows.append([say(f"weights.{quantity}", task=say.task(task)), *map(figure, values)])
    head = [say(f"weights.{name}") for name in ("what", "first", "lowest", "median", "highest", "last")]
    return Table(say("weights.caption", count=count(len(updates))), head, rows)


def losses_section(run: RunFiles, say: Wording) -> Section:
    """How the losses changed, in words, and the figures epoch by epoch."""
    title, epochs = say("losses.title"), run.epochs
    if not epochs:
        return Section("losses", title, [missing(run.folder, EPOCHS_FILE, say)])
    blocks: list[Block] = [] if run.joint_epochs else [missing(run.folder, EPOCHS_FILE, say), Small(say("losses.plain"))]
    if len(epochs) > 1:
        blocks += _loss_blocks(epochs, run.tasks, say)
    else:
        blocks.append(Missing(say("losses.one_epoch", epoch=epochs.texts("epoch")[0])))
    blocks.append(_epoch_table(epochs, run.tasks, say))
    return Section("losses", title, [*blocks, *pictures(run.folder, [EPOCHS_PICTURE, "results.png"], say)[:1]])


def _loss_blocks(epochs: Rows, tasks: ImageTasks, say: Wording) -> list[Block]:
    rows: list[list[Cell]] = []
    words: dict[str, list[str]] = {"fell": [], "rose": [], "held": []}
    overtrained: list[Text] = []
    names, end, elsewhere = epochs.texts("epoch"), len(epochs) - 1, False

    def at(values: list[float], index: int, expected: int) -> str:
        """A value, with its epoch if that is not the expected one."""
        number = figure(values[index])
        return number if index == expected else say.plain("losses.at", value=number, epoch=names[index])

    for loss in loss_columns(tasks):
        values = epochs.numbers(loss)
        known = [index for index, value in enumerate(values) if math.isfinite(value)]
        if not known:
            continue
        first, last, lowest = known[0], known[-1], min(known, key=values.__getitem__)
        elsewhere = elsewhere or first != 0 or last != end
        label, change = say.loss(loss), say.change(_change(values[first], values[last]))
        rows.append([label, at(values, first, 0), at(values, last, end), change, figure(values[lowest]), names[lowest]])
        if first != last:
            words[_direction(values[first], values[last])].append(label)
        if loss.startswith("val") and _direction(values[lowest], values[last]) == "rose":
            share = say.percent(_change(values[lowest], values[last]))
            overtrained.append(say("losses.past_lowest", loss=label, epoch=names[lowest], share=share))
    points = [say(f"losses.{word}", losses=say.listed(labels)) for word, labels in words.items() if labels]
    head = [say(f"losses.{name}") for name in ("loss", "first", "last", "change", "lowest", "epoch")]
    caption = say("losses.caption", file=epochs.file, first=names[0], last=names[end])
    notes = [Small(say("losses.rule", same=say.percent(SAME, "g")))] + ([Small(say("losses.elsewhere"))] if elsewhere else [])
    return [Points(points + overtrained), Table(caption, head, rows), *notes]


def _epoch_table(epochs: Rows, tasks: ImageTasks, say: Wording) -> Table:
    best, names = best_epoch(epochs.numbers("fitness")), epochs.texts("epoch")
    columns: list[tuple[Cell, str, str]] = [(say.score(name), name, name) for name in DETECTION_FIGURES if name != "F1"]
    columns += [(say.score(name, task), name, task.figure(name)) for task in tasks for name in task.figures]
    columns.append((say.score("fitness"), "fitness", "fitness"))
    columns += [(say("weights.weight", task=say.task(task)), f"{task}_weight", "weight") for task in task_names(tasks)]
    columns = [column for column in columns if epochs.known(column[1])]
    shown = _spread(len(epochs), MOST_EPOCHS, [] if best is None else [best])
    labels = [say.plain("losses.best", epoch=names[index]) if index == best else names[index] for index in shown]
    cells = [[measured(kind, epochs.numbers(name)[index]) for index in shown] for _, name, kind in columns]
    head = [say("losses.epoch"), *(label for label, _, _ in columns)]
    return Table(say("losses.epochs_caption", shown=len(shown), all=len(epochs)), head, [*zip(labels, *cells, strict=True)])


def interference_section(run: RunFiles, say: Wording) -> Section:
    """Whether tasks pull the shared layers in opposite directions: the cosine between the gradients of each two."""
    blocks: list[Block]
    if run.options.text("backbone") == "dual":
        blocks = [Missing(say("interference.dual"))]
    elif run.updates:
        cosines = run.updates.known("cosine")
        blocks = _cosine_blocks(run.updates, cosines, run.tasks, say) if cosines else [Missing(say("interference.none"))]
    else:
        blocks = [Missing(say("interference.fixed")) if _is_fixed(run) else missing(run.folder, UPDATES_FILE, say)]
    return Section("interference", say("interference.title"), blocks)


def _cosine_blocks(updates: Rows, cosines: list[float], tasks: ImageTasks, say: Wording) -> list[Block]:
    pairs, mean, negative = _pair_blocks(updates, tasks, say), fmean(cosines), sum(cosine < 0 for cosine in cosines)
    shares = {"negative": count(negative), "count": count(len(cosines)), "share": say.percent(negative / len(cosines))}
    points = [say("interference.share", **shares)]
    if not pairs:
        points.append(say(f"interference.{_verdict(mean)}", mean=figure(mean)))
    parts = {"all": cosines}
    if len(cosines) >= FEWEST:
        cuts = [round(len(cosines) * part / 3) for part in range(4)]
        parts |= {name: cosines[cuts[part] : cuts[part + 1]] for part, name in enumerate(("first", "second", "third"))}
    table = _cosine_table("caption", "part", {say(f"interference.{name}"): part for name, part in parts.items()}, say)
    return [Points(points), *pairs, table, Small(say("interference.rule", limit=figure(ORTHOGONAL)))]


def _pair_blocks(updates: Rows, tasks: ImageTasks, say: Wording) -> list[Block]:
    """Of each two tasks, in words and in a table; empty where there are two tasks only."""
    cosines: dict[Cell, list[float]] = {}
    verdicts: dict[str, list[str]] = {"oppose": [], "agree": [], "orthogonal": []}
    for column, (first, second) in zip(cosine_columns(tasks)[1:], combinations(task_names(tasks), 2), strict=False):
        if found := updates.known(column):
            pair = say.plain("interference.pair", first=say.task(first), second=say.task(second))
            verdicts[_verdict(fmean(found))].append(pair)
            cosines[pair] = found
    points = [say(f"interference.pairs_{verdict}", pairs=say.listed(pairs)) for verdict, pairs in verdicts.items() if pairs]
    return [Points(points), _cosine_table("pairs", "tasks", cosines, say)] if cosines else []


def _verdict(mean: float) -> str:
    return "orthogonal" if abs(mean) <= ORTHOGONAL else ("agree" if mean > 0 else "oppose")


def _cosine_table(caption: str, first: str, parts: dict[Cell, list[float]], say: Wording) -> Table:
    rows: list[list[Cell]] = []
    for label, cosines in parts.items():
        below = sum(cosine < 0 for cosine in cosines)
        values = map(figure, (fmean(cosines), median(cosines), min(cosines), max(cosines)))
        rows.append([label, count(len(cosines)), *values, count(below), say.percent(below / len(cosines))])
    return Table(say(f"interference.{caption}"), [say(f"interference.{name}") for name in (first, *COSINE_COLUMNS)], rows)


def _change(first: float, last: float) -> float:
    """The change relative to `first`; NaN if that is 0."""
    return (last - first) / abs(first) if first else math.nan


def _direction(first: float, last: float) -> str:
    """`rose`, `fell`, or `held` if the change is within `SAME` (of 0, if there is none)."""
    return "held" if abs(last - first) <= SAME * abs(first) else ("rose" if last > first else "fell")


def _spread(length: int, limit: int, keep: Iterable[int] = ()) -> list[int]:
    """At most `limit` indices below `length`, evenly spaced and including the first and the last, and those in `keep`."""
    if length <= limit:
        return list(range(length))
    return sorted({round(index * (length - 1) / (limit - 1)) for index in range(limit)} | set(keep))
