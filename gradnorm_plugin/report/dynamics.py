"""What happened during the training: the first batches, the task weights, the losses, and how the tasks' gradients interfered."""

from __future__ import annotations

import math
from collections.abc import Iterable
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
from gradnorm_plugin.run_folder import (
    BATCHES_FILE,
    DETECTION,
    DETECTION_FIGURES,
    EPOCHS_FILE,
    EPOCHS_PICTURE,
    UPDATES_FILE,
    UPDATES_PICTURE,
    Epochs,
    ImageTasks,
    Rows,
    RunFiles,
    batch_figures,
    cosine_columns,
    finite,
    loss_columns,
    task_names,
    weight_columns,
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
    if run.batches is None:
        return Section("batches", title, [missing(run.folder, BATCHES_FILE, say)])
    epochs, batch = run.batches.texts("epoch"), run.batches.texts("batch")
    first = [index for index, epoch in enumerate(epochs) if epoch == epochs[0]]
    shown = [first[index] for index in _spread(len(first), MOST_BATCHES)]
    names = batch_figures(run.tasks)
    columns = [run.batches.numbers(name) for name in names]
    rows = [[batch[index], *(figure(column[index]) for column in columns)] for index in shown]
    tasks = task_names(run.tasks)
    of_tasks = [say.of_task(key, task) for key in ("batches.*", "batches.*_weight") for task in tasks]
    head = (say("batches.batch"), say("batches.total"), *of_tasks, say("batches.cosine"))
    caption = say("batches.caption", epoch=epochs[0], shown=len(shown), all=len(first))
    return Section("batches", title, [Table(caption, head, rows), Small(say("batches.note"))])


def weights_section(run: RunFiles, say: Wording) -> Section:
    """What the task weights did, and whether they brought the tasks' gradients nearer to each other."""
    blocks: list[Block]
    if run.updates is not None:
        points = [*_weight_points(run, run.updates, say), *_norm_points(run.updates, run.tasks, say)]
        blocks = [Points(points), _weight_table(run.updates, run.tasks, say), Small(say("weights.rule", same=say.limit(SAME)))]
    elif not _is_fixed(run):
        blocks = [missing(run.folder, UPDATES_FILE, say)]
    elif run.epochs is None:
        blocks = [Points([say("weights.fixed")]), missing(run.folder, EPOCHS_FILE, say)]
    else:
        blocks = [Points([say("weights.fixed"), *_fixed_points(run.epochs, run.tasks, say)])]
    return Section("weights", say("weights.title"), [*blocks, *pictures(run.folder, [UPDATES_PICTURE], say)])


def _is_fixed(run: RunFiles) -> bool:
    return run.options is not None and run.options.text("balancer") == "fixed"


def _fixed_points(epochs: Rows, tasks: ImageTasks, say: Wording) -> list[Text]:
    points = []
    for task in task_names(tasks):
        used = finite(epochs.numbers(f"{task}_weight"))
        if used:
            values = {"task": say.task(task), "low": figure(min(used)), "high": figure(max(used)), "epochs": len(used)}
            points.append(say("weights.constant" if min(used) == max(used) else "weights.moved", **values))
    return points


def _weight_points(run: RunFiles, updates: Rows, say: Wording) -> list[Text]:
    steps, weights = updates.texts("step"), {task: updates.numbers(f"{task}_weight") for task in task_names(run.tasks)}
    if len(updates) == 1:
        values = {f"{task}_weight": figure(of[0]) for task, of in weights.items()}
        listed = say.listed(f"{say.task(task)} {figure(of[0])}" for task, of in weights.items())
        return [say("weights.single", step=steps[0], weights=listed, **values)]
    points = []
    for task, of in weights.items():
        used = finite(of)
        if not used:
            continue
        numbers = {"first": used[0], "last": used[-1], "low": min(used), "high": max(used)}
        points.append(
            say(
                f"weights.{_direction(used[0], used[-1])}",
                task=say.task(task), count=count(len(used)), start=steps[0], end=steps[-1],
                **{name: figure(number) for name, number in numbers.items()},
            )
        )  # fmt: skip
    return [*points, *_sum_point(weights, say), *_range_points(run, weights, say)]


def _sum_point(weights: dict[str, list[float]], say: Wording) -> list[Text]:
    """From the first update on the weights sum to S, unlike the initial ones: GradNorm did not find that jump, it is set."""
    sums = finite(sum(pair) for pair in zip(*weights.values(), strict=True))
    if len(sums) < 2:
        return []
    first, *later = sums
    if max(later) - min(later) > SAME * abs(later[0]) or _direction(first, later[0]) == "held":
        return []
    return [say("weights.sum", first=figure(first), later=figure(later[0]))]


def _range_points(run: RunFiles, weights: dict[str, list[float]], say: Wording) -> list[Text]:
    """How often a weight stood at an end of its range, where `run.json` tells the ranges."""
    ranges = run.facts.record("balancing").pairs("weight_ranges") if run.facts is not None else []
    points = []
    for task, bounds in zip(task_names(run.tasks), ranges, strict=False):
        if bounds[0] == bounds[1]:  # the weight of a reference task is always 1
            continue
        later = weights[task][1:]  # the first measurement still has the initial weight
        ends = [sum(math.isclose(weight, end, rel_tol=1e-5) for weight in later) for end in bounds]
        values = {"low": figure(bounds[0]), "high": figure(bounds[1]), "at_low": count(ends[0]), "at_high": count(ends[1])}
        key = "weights.range" if any(ends) else "weights.range_never"
        points.append(say(key, task=say.task(task), count=count(len(later)), **values))
    return points


def _norm_points(updates: Rows, tasks: ImageTasks, say: Wording) -> list[Text]:
    points = []
    for task in tasks:
        norms, weights = ([updates.numbers(f"{name}_{of}") for name in (DETECTION, task.name)] for of in ("norm", "weight"))
        bare = [c / d if d else math.nan for d, c in zip(*norms, strict=True)]
        weighted = [ratio * c / d if d else math.nan for ratio, d, c in zip(bare, *weights, strict=True)]
        before, after = _middle(bare), _middle(weighted)
        if before > 0 and after > 0:
            nearer = "nearer" if abs(math.log(after)) < abs(math.log(before)) else "not_nearer"
            points.append(say(f"weights.{nearer}", task=say.task(task.name), before=figure(before), after=figure(after)))
    for part in ("detection", "head"):
        unclipped = finite(updates.numbers(f"{part}_norm_before_clip"))
        if unclipped:
            above = sum(norm > CLIP for norm in unclipped)
            points.append(
                say(
                    f"weights.clip_{part}",
                    clip=figure(CLIP), median=figure(median(unclipped)), above=count(above), count=count(len(unclipped)),
                    share=say.percent(above / len(unclipped)),
                )
            )  # fmt: skip
    return points


def _weight_table(updates: Rows, tasks: ImageTasks, say: Wording) -> Table:
    rows: list[list[Cell]] = []
    for quantity in ("weight", "loss", "norm"):
        for task in task_names(tasks):
            used = finite(updates.numbers(f"{task}_{quantity}"))
            if used:
                values = (used[0], min(used), median(used), max(used), used[-1])
                rows.append([say(f"weights.{quantity}", task=say.task(task)), *map(figure, values)])
    head = [say(f"weights.{name}") for name in ("what", "first", "lowest", "median", "highest", "last")]
    return Table(say("weights.caption", count=count(len(updates))), head, rows)


def losses_section(run: RunFiles, say: Wording) -> Section:
    """How the losses changed, in words, and the figures epoch by epoch."""
    title, epochs = say("losses.title"), run.any_epochs()
    if epochs is None:
        return Section("losses", title, [missing(run.folder, EPOCHS_FILE, say)])
    blocks: list[Block] = [] if epochs.joint else [missing(run.folder, EPOCHS_FILE, say), Small(say("losses.plain"))]
    blocks += (
        _loss_blocks(epochs, run.tasks, say) if len(epochs) > 1 else [Missing(say("losses.one_epoch", epoch=epochs.name(0)))]
    )
    blocks.append(_epoch_table(epochs, run.tasks, say))
    return Section("losses", title, [*blocks, *pictures(run.folder, [EPOCHS_PICTURE, "results.png"], say)[:1]])


def _loss_blocks(epochs: Epochs, tasks: ImageTasks, say: Wording) -> list[Block]:
    rows: list[list[Cell]] = []
    words: dict[str, list[str]] = {"fell": [], "rose": [], "held": []}
    overtrained: list[Text] = []
    end, elsewhere = len(epochs) - 1, False

    def at(values: list[float], index: int, expected: int) -> str:
        """A value, with its epoch if that is not the expected one."""
        number = figure(values[index])
        return number if index == expected else say.plain("losses.at", value=number, epoch=epochs.name(index))

    for loss in loss_columns(tasks):
        values = epochs.numbers(loss)
        known = [index for index, value in enumerate(values) if math.isfinite(value)]
        if not known:
            continue
        first, last, lowest = known[0], known[-1], min(known, key=values.__getitem__)
        elsewhere = elsewhere or first != 0 or last != end
        label, change = say.loss(loss), say.change(_change(values[first], values[last]))
        rows.append([label, at(values, first, 0), at(values, last, end), change, figure(values[lowest]), epochs.name(lowest)])
        if first != last:
            words[_direction(values[first], values[last])].append(label)
        if loss.startswith("val") and _direction(values[lowest], values[last]) == "rose":
            share = say.percent(_change(values[lowest], values[last]))
            overtrained.append(say("losses.past_lowest", loss=label, epoch=epochs.name(lowest), share=share))
    points = [say(f"losses.{word}", losses=say.listed(labels)) for word, labels in words.items() if labels]
    head = [say(f"losses.{name}") for name in ("loss", "first", "last", "change", "lowest", "epoch")]
    caption = say("losses.caption", file=epochs.rows.file, first=epochs.name(0), last=epochs.name(end))
    notes = [Small(say("losses.rule", same=say.limit(SAME)))] + ([Small(say("losses.elsewhere"))] if elsewhere else [])
    return [Points(points + overtrained), Table(caption, head, rows), *notes]


def _epoch_table(epochs: Epochs, tasks: ImageTasks, say: Wording) -> Table:
    best = epochs.best()
    shown = _spread(len(epochs), MOST_EPOCHS, [] if best is None else [best])
    figures = [(name, say.score(name), name) for name in DETECTION_FIGURES if name != "F1"]
    figures += [(name, say.score(name, task), task.figure(name)) for task in tasks for name in task.figures]
    figures.append(("fitness", say.score("fitness"), "fitness"))
    columns: list[tuple[Cell, list[float], str]] = [(head, epochs.numbers(name), kind) for name, head, kind in figures]
    columns += [
        (say("weights.weight", task=say.task(task)), epochs.numbers(name), "weight")
        for task, name in zip(task_names(tasks), weight_columns(tasks), strict=True)
    ]
    columns = [column for column in columns if any(map(math.isfinite, column[1]))]
    rows = []
    for index in shown:
        name = epochs.name(index)
        label = say.plain("losses.best", epoch=name) if index == best else name
        rows.append([label, *(measured(kind, values[index]) for _, values, kind in columns)])
    head = [say("losses.epoch"), *(name for name, _, _ in columns)]
    return Table(say("losses.epochs_caption", shown=len(shown), all=len(epochs)), head, rows)


def interference_section(run: RunFiles, say: Wording) -> Section:
    """Whether tasks pull the shared layers in opposite directions: the cosine between the gradients of each two."""
    cosines = finite(run.updates.numbers("cosine")) if run.updates is not None else []
    blocks: list[Block]
    if run.options is not None and run.options.text("backbone") == "dual":
        blocks = [Missing(say("interference.dual"))]
    elif run.updates is None:
        blocks = [Missing(say("interference.fixed")) if _is_fixed(run) else missing(run.folder, UPDATES_FILE, say)]
    else:
        pairs = _pair_blocks(run.updates, run.tasks, say)
        blocks = _cosine_blocks(cosines, pairs, say) if cosines else [Missing(say("interference.none"))]
    return Section("interference", say("interference.title"), blocks)


def _pair_blocks(updates: Rows, tasks: ImageTasks, say: Wording) -> list[Block]:
    """Of each two tasks, in words and in a table; empty where there are two tasks only."""
    names, columns = combinations(task_names(tasks), 2), cosine_columns(tasks)[1:]
    rows: list[list[Cell]] = []
    verdicts: dict[str, list[str]] = {"oppose": [], "agree": [], "orthogonal": []}
    for column, (first, second) in zip(columns, names, strict=bool(columns)):
        cosines = finite(updates.numbers(column))
        if cosines:
            pair = say.plain("interference.pair", first=say.task(first), second=say.task(second))
            verdicts[_verdict(fmean(cosines))].append(pair)
            rows.append([pair, *_cosine_cells(cosines, say)])
    if not rows:
        return []
    points = [say(f"interference.pairs_{verdict}", pairs=say.listed(pairs)) for verdict, pairs in verdicts.items() if pairs]
    head = [say(f"interference.{name}") for name in ("tasks", *COSINE_COLUMNS)]
    return [Points(points), Table(say("interference.pairs"), head, rows)]


def _verdict(mean: float) -> str:
    return "orthogonal" if abs(mean) <= ORTHOGONAL else ("agree" if mean > 0 else "oppose")


def _cosine_cells(cosines: list[float], say: Wording) -> list[Cell]:
    below = sum(cosine < 0 for cosine in cosines)
    values = map(figure, (fmean(cosines), median(cosines), min(cosines), max(cosines)))
    return [count(len(cosines)), *values, count(below), say.percent(below / len(cosines))]


def _cosine_blocks(cosines: list[float], pairs: list[Block], say: Wording) -> list[Block]:
    mean, negative = fmean(cosines), sum(cosine < 0 for cosine in cosines)
    shares = {"negative": count(negative), "count": count(len(cosines)), "share": say.percent(negative / len(cosines))}
    points = [say("interference.share", **shares)]
    if not pairs:
        points.append(say(f"interference.{_verdict(mean)}", mean=figure(mean)))
    parts = [("all", cosines)]
    if len(cosines) >= FEWEST:
        cuts = [round(len(cosines) * part / 3) for part in range(4)]
        parts += [(name, cosines[cuts[part] : cuts[part + 1]]) for part, name in enumerate(("first", "second", "third"))]
    rows: list[list[Cell]] = [[say(f"interference.{name}"), *_cosine_cells(part, say)] for name, part in parts]
    head = [say(f"interference.{name}") for name in ("part", *COSINE_COLUMNS)]
    return [
        Points(points),
        *pairs,
        Table(say("interference.caption"), head, rows),
        Small(say("interference.rule", limit=figure(ORTHOGONAL))),
    ]


def _middle(values: Iterable[float]) -> float:
    """Median of the values that are numbers; NaN if none is."""
    found = finite(values)
    return median(found) if found else math.nan


def _change(first: float, last: float) -> float:
    """The change relative to `first`; NaN if that is 0."""
    return (last - first) / abs(first) if first else math.nan


def _direction(first: float, last: float) -> str:
    """`rose`, `fell`, or `held` if the change is within `SAME` (or `first` is 0 and nothing can be said in shares)."""
    share = _change(first, last)
    if math.isnan(share):
        return "held" if last == first else ("rose" if last > first else "fell")
    return "held" if abs(share) <= SAME else ("rose" if share > 0 else "fell")


def _spread(length: int, limit: int, keep: Iterable[int] = ()) -> list[int]:
    """At most `limit` indices below `length`, evenly spaced and including the first and the last, and those in `keep`."""
    if length <= limit:
        return list(range(length))
    return sorted({round(index * (length - 1) / (limit - 1)) for index in range(limit)} | set(keep))
