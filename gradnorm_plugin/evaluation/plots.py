"""The classification's confusion matrix, in the look of upstream's."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn


def plot_confusion_matrix(confusion: np.ndarray, names: list[str], picture: Path) -> None:
    """Draw (C, C) counts, row true and column predicted: colour is the share of the true class, the number is the count."""
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    figure, axis = plt.subplots(figsize=(1.1 * len(names) + 3, 0.9 * len(names) + 2.4), layout="constrained")
    seaborn.heatmap(
        shares, annot=confusion, fmt="d", cmap="Blues", vmin=0, vmax=1, square=True, ax=axis,
        xticklabels=names, yticklabels=names,
    )  # fmt: skip
    axis.set(xlabel="Predicted", ylabel="True", title="Image classification")
    partial = picture.with_name(f"{picture.stem}.partial{picture.suffix}")
    figure.savefig(partial, dpi=200)
    plt.close(figure)
    os.replace(partial, picture)
