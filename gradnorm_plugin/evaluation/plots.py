"""Pictures of the image outputs: for a class the confusion matrix in the look of upstream's, and the reliability diagram.

Of each output also the validation images whose answers are explained: the best, the worst right and the worst wrong one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradnorm_plugin.evaluation.recording import Recording
from gradnorm_plugin.files import whole_file
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.names import shortened
from gradnorm_plugin.outputs import CLASS, Classes, ImageOutput
from gradnorm_plugin.outputs.classes import Calibration, classification_metrics
from gradnorm_plugin.predict import PredictError
from gradnorm_plugin.predict.images import write_image
from gradnorm_plugin.predict.predictor import Predictor
from gradnorm_plugin.run_folder import CONFUSION_PICTURE, EXPLAINED_PICTURES, RELIABILITY_PICTURE, output_picture
from gradnorm_plugin.upstream.gateway import upstream

_ANNOTATED_CLASSES = 30
"""Upstream writes numbers into the cells of smaller matrices only."""
_LONGEST_NAME = 40
"""Characters of a class's name beside the cells."""


def plot_outputs(recording: Recording, folder: Path, outputs: Sequence[ImageOutput]) -> None:
    """Write the pictures of these image outputs into `folder`; none of one that no image has a label for.

    They are figures of their own, not pyplot's: upstream's plotting threads may still be at work.
    """
    for output in outputs:
        answers, targets = recording.labelled(output)
        if not len(targets):
            continue
        if isinstance(output, Classes):
            metrics = classification_metrics(answers, targets)
            plot_confusion_matrix(metrics.confusion, list(output.names), folder / output_picture(output.task, CONFUSION_PICTURE))
            plot_reliability(metrics.calibration, folder / output_picture(output.task, RELIABILITY_PICTURE))
            continue
        with seaborn.axes_style("whitegrid"), matplotlib.rc_context({"text.parse_math": False}):
            figure = output.figure(answers, targets)
        if figure is not None:
            _save(figure, folder / f"{output.name}.png")


def plot_confusion_matrix(confusion: np.ndarray, names: list[str], picture: Path) -> None:
    """Draw (C, C) counts, row true and column predicted, as upstream turns them: true across, predicted down.

    Left the counts, right each column's shares, which sum to 1: the recall stands on the diagonal.
    """
    counts = confusion.T
    shares = counts / np.maximum(counts.sum(0, keepdims=True), 1)
    names = [shortened(name, _LONGEST_NAME) for name in names]
    side = min(max(0.75 * len(names) + 2.2, 4.5), 18)
    font = seaborn.plotting_context("notebook", font_scale=0.9 if len(names) < 50 else 0.5)
    literal: dict[Any, Any] = {"text.parse_math": False}
    with seaborn.axes_style("white"), font, matplotlib.rc_context(literal):  # a name with two dollar signs is no formula
        figure = Figure(figsize=(2 * side, 0.86 * side), layout="constrained")
        left, right = figure.subplots(1, 2)
        _heatmap(left, counts, names, "d", "Images", None)
        _heatmap(right, shares, names, ".2f", "Share of the true class", 1.0)
        figure.suptitle("Image classification: confusion matrix")
        _save(figure, picture)


def plot_reliability(calibration: Calibration, picture: Path) -> None:
    """Draw how often predictions of each confidence are right, and how many there are of each."""
    bins = len(calibration.counts)
    centres, filled = (np.arange(bins) + 0.5) / bins, calibration.counts > 0
    with seaborn.axes_style("whitegrid"), seaborn.plotting_context("notebook", font_scale=0.9):
        figure = Figure(figsize=(6, 6.4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.bar(centres, np.nan_to_num(calibration.accuracy), 1 / bins, color="#6aaed6", edgecolor="white", label="share right")
        above.plot((0, 1), (0, 1), "--", color="grey", linewidth=1, label="perfectly calibrated")
        points = calibration.confidence[filled], calibration.accuracy[filled]
        above.plot(*points, "o", color="#08306b", clip_on=False, zorder=5, label="at the mean confidence")
        above.set(ylim=(0, 1), xlim=(0, 1), ylabel="Share of right predictions")
        above.set_title(f"Image classification: calibration error {calibration.error:.3f}")
        bars = below.bar(centres, calibration.counts, 1 / bins, color="#6aaed6", edgecolor="white")
        below.bar_label(bars, [str(count) if count else "" for count in calibration.counts], fontsize=8)
        below.set(xlabel="Confidence (probability of the predicted class)", ylabel="Images")
        below.margins(y=0.18)
        figure.legend(loc="outside lower center", ncols=3, fontsize="small", frameon=False)
        _save(figure, picture)


def _heatmap(axis: Axes, cells: np.ndarray, names: list[str], digits: str, title: str, top: float | None) -> None:
    seaborn.heatmap(
        cells, annot=len(names) < _ANNOTATED_CLASSES, fmt=digits, cmap="Blues", vmin=0, vmax=top, square=True, ax=axis,
        mask=cells < 0.005, cbar_kws={"shrink": 0.8}, xticklabels=names, yticklabels=names,
    )  # fmt: skip
    axis.set_xlabel("True", labelpad=8)
    axis.set_ylabel("Predicted", labelpad=8)
    axis.set_title(title)
    axis.tick_params(axis="y", labelrotation=0)


def _save(figure: Figure, picture: Path) -> None:
    upstream("utils.fonts").give_letters(figure)
    with whole_file(picture) as partial:
        figure.savefig(partial, dpi=200)


def explain_examples(
    recording: Recording, folder: Path, outputs: Sequence[ImageOutput], weights: str | JointBackend, imgsz: int, device: str
) -> None:
    """Write the explained pictures of these image outputs into `folder`, as `predict --explain` draws them.

    Args:
        weights: one .pt of a joint model, or what was loaded of it.
        imgsz: pixels of the longer side.
        device: as in YOLOv5's `--device`.
    """
    log = upstream("utils.general").LOGGER
    level = log.level
    log.setLevel(logging.WARNING)  # this network has been described already
    try:
        predictor = Predictor(weights, imgsz=imgsz, device=device)
        for output in outputs:
            answers, targets = recording.labelled(output)
            files = np.array(recording.files)[output.known(recording.targets(output))]
            for which, index in choose_examples(output, answers, targets).items():
                picture = folder / output_picture(output.task, EXPLAINED_PICTURES[which])
                true = output.say_target(output.target(targets[index]))
                note = f"{Path(files[index]).name}, true {'class ' * (output.name == CLASS)}{true}"
                write_image(picture, predictor(str(files[index])).explain(output.name).draw(note=note))
    except PredictError as error:
        log.warning(f"WARNING ⚠️ no more explained pictures: {error}")
    finally:
        log.setLevel(level)


def choose_examples(output: ImageOutput, answers: np.ndarray, targets: np.ndarray) -> dict[str, int]:
    """Which of the labelled images are shown: `best` and `worst` are right, `wrong` is not; by the loss of their answers.

    For a class that is by the probability of the true one. A kind without images is left out.
    """
    order = np.argsort(output.answer_losses(answers, targets), kind="stable")
    hits = np.array([output.right(answers[index], output.target(targets[index])) for index in order], dtype=bool)
    right, wrong = order[hits], order[~hits]
    found = {"best": right[:1], "worst": right[1:][-1:], "wrong": wrong[-1:]}
    return {which: int(index) for which, chosen in found.items() for index in chosen}
