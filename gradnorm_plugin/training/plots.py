"""Pictures of a run's two tables."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DETECTION, CLASSIFICATION, OTHER = "#0b5394", "#cc4125", "#555555"


@seaborn.axes_style("whitegrid")
def plot_updates(table: Path, picture: Path) -> None:
    """Weights, losses, gradient norms and their cosine over the steps of `gradnorm.csv`."""
    rows = pd.read_csv(table)
    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), sharex=True, layout="constrained")
    for axis, quantity, title in (
        (axes[0, 0], "weight", "Task weights"),
        (axes[0, 1], "loss", "Losses, unweighted, of a batch"),
        (axes[1, 0], "norm", "Gradient norms at the last shared weights"),
    ):
        for task, colour in (("detection", DETECTION), ("classification", CLASSIFICATION)):
            _line(axis, rows["step"], rows[f"{task}_{quantity}"], task, colour)
        axis.set_title(title)
        axis.set_yscale("log")
        axis.legend(frameon=False)
    _line(axes[1, 1], rows["step"], rows["cosine"], "cosine", OTHER)
    axes[1, 1].axhline(0, color="black", linewidth=0.6)
    axes[1, 1].set(title="Cosine of the two gradients", ylim=(-1, 1))
    for axis in axes[1]:
        axis.set_xlabel("step (batch)")
    _save(figure, picture)


@seaborn.axes_style("whitegrid")
def plot_epochs(table: Path, picture: Path) -> None:
    """Detection and classification figures over the epochs of `joint_results.csv`."""
    rows = pd.read_csv(table)
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for axis, title, columns in (
        (axes[0], "Detection", ("precision", "recall", "mAP50", "mAP50-95")),
        (axes[1], "Classification", ("accuracy", "balanced_accuracy", "macro_F1")),
        (axes[2], "Classification loss", ("train_classification_loss", "val_classification_loss")),
    ):
        for column in columns:
            axis.plot(rows["epoch"], rows[column], marker=".", label=column.replace("_", " "))
        axis.set(title=title, xlabel="epoch")
        axis.legend(frameon=False)
    for axis in axes[:2]:
        axis.set_ylim(0, 1.02)
    _save(figure, picture)


def _line(axis: Axes, steps: pd.Series, values: pd.Series, label: str, colour: str) -> None:
    """The measured values, faint, and their running mean over a twentieth of them."""
    smooth = values.rolling(max(len(values) // 20, 1), min_periods=1, center=True).mean()
    axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axis.plot(steps, smooth, color=colour, label=label)


def _save(figure: Figure, picture: Path) -> None:
    partial = picture.with_name(f"{picture.stem}.partial{picture.suffix}")
    figure.savefig(partial, dpi=160)
    plt.close(figure)
    os.replace(partial, picture)
