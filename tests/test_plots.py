"""The pictures of a run: what its tables say is what is drawn, with one row or gaps too; and the class on each mosaic's tile."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import seaborn
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from gradnorm_plugin.evaluation import mosaics
from gradnorm_plugin.evaluation.mosaics import answer_badges, badges_on_mosaics, label_badges
from gradnorm_plugin.files import WriteError
from gradnorm_plugin.outputs import CLASS, class_output, read_outputs
from gradnorm_plugin.run_folder import CLASSIFICATION as CLASSIFICATION_TASK
from gradnorm_plugin.run_folder import ImageTask, epoch_columns, update_columns
from gradnorm_plugin.training.figures import CLASSIFICATION, DETECTION
from gradnorm_plugin.training.plots import best_row, epochs_figure, majority_share, plot_epochs, plot_updates, updates_figure
from gradnorm_plugin.upstream.gateway import upstream

SETTINGS = {"weight_sum": 4.0, "weight_ranges": [[1.0, 4.0], [0.01, 0.4]]}
OUTPUTS = (class_output(["PSAX", "PLAX/long", "A4C"]),)
THREE = (
    CLASSIFICATION_TASK,
    ImageTask("finding", "labels", ("finding_macro_F1", "finding_mean_AP"), "finding_macro_F1"),
    ImageTask("ef", "value", ("ef_MAE", "ef_R2"), "ef_R2"),
)


def updates(count: int, tasks: tuple[ImageTask, ...] = (CLASSIFICATION_TASK,)) -> pd.DataFrame:
    """Rows of gradnorm.csv, an update every 10 steps, 40 steps an epoch."""
    columns = update_columns(tasks)
    rows = pd.DataFrame(np.random.default_rng(0).uniform(0.5, 2, (count, len(columns))), columns=columns)
    rows["step"] = 10 * (np.arange(count) + 1)
    rows["epoch"] = rows["step"] // 40
    rows["cosine"] = np.where(np.arange(count) % 4 == 0, -0.25, 0.125)
    return rows


def epochs(count: int, tasks: tuple[ImageTask, ...] = (CLASSIFICATION_TASK,)) -> pd.DataFrame:
    columns = epoch_columns(tasks)
    rows = pd.DataFrame(np.random.default_rng(0).uniform(0.1, 0.9, (count, len(columns))), columns=columns)
    rows["epoch"] = np.arange(count)
    return rows


def drawn(axis: Axes, colour: str) -> list[list[float]]:
    """The y values of the lines of one colour that follow the rows."""
    lines = [line for line in axis.lines if line.get_color() == colour and len(line.get_xdata()) > 2]
    return [[float(value) for value in line.get_ydata()] for line in lines]


def test_every_panel_shows_its_columns():
    rows = updates(12)
    weights, losses, norms, weighted, rates, cosine, *_ = updates_figure(rows, SETTINGS).axes
    for task, colour in (("detection", DETECTION), ("classification", CLASSIFICATION)):
        norm, weight = rows[f"{task}_norm"], rows[f"{task}_weight"]
        assert drawn(losses, colour) == [rows[f"{task}_loss"].tolist()]
        assert drawn(norms, colour) == [norm.tolist()]
        assert drawn(weighted, colour) == [pytest.approx((norm * weight).tolist())]
        assert drawn(rates, colour) == [rows[f"{task}_rate"].tolist()]
        assert drawn(weights, colour) == [[weight[0], *weight]]  # from the first batch on
    assert [axis.get_yscale() for axis in (weights, losses, norms, weighted, rates, cosine)] == ["log"] * 4 + ["linear"] * 2
    (words,) = [text.get_text() for text in cosine.texts]
    assert "25 % (n = 12)" in words and "+0.031" in words
    assert "sum 4" in weights.get_title(loc="left")


def test_ranges_are_drawn_where_there_are_any():
    def bands(settings: dict) -> list[tuple[float, float]]:
        boxes = [patch.get_bbox() for patch in updates_figure(updates(4), settings).axes[0].patches]
        return [(box.y0, box.y1) for box in boxes]

    assert bands(SETTINGS) == [(1, 4), (0.01, 0.4)]
    assert bands({"weight_sum": 2.0, "weight_ranges": None}) == bands({}) == []


def test_many_values_are_smoothed_and_their_mean_on_log_axes_is_geometric():
    rows = updates(100)
    rows["detection_loss"] = np.where(np.arange(100) % 2 == 0, 1.0, 100.0)
    measured, smooth = drawn(updates_figure(rows, {}).axes[1], DETECTION)
    assert measured == rows["detection_loss"].tolist()
    assert all(6 < value < 16 for value in smooth[5:-5])  # about the root of 1 * 100; an arithmetic mean is about 50


def test_epochs_are_marked_on_the_x_axis():
    figure = updates_figure(updates(20), {})
    top = figure.axes[0].child_axes[0]
    assert [text.get_text() for text in top.get_xticklabels()] == ["epoch 0", "1", "2", "3", "4", "5"]
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 0.5]
    assert marks == [0, 40, 80, 120, 160, 200]


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
@pytest.mark.parametrize(("count", "gaps"), [(1, False), (1, True), (60, True)])
def test_few_rows_and_gaps_are_drawn_without_a_warning(tmp_path, count, gaps):
    of_updates, of_epochs = updates(count), epochs(count)
    if gaps:
        of_updates[["cosine", "detection_rate", "classification_rate"]] = math.nan
        of_updates["classification_loss"] = 0.0
        of_epochs[["accuracy", "fitness", "val_classification_loss"]] = math.nan
        of_epochs[["train_cls_loss", "val_cls_loss"]] = 0.0
    of_updates.to_csv(tmp_path / "gradnorm.csv", index=False)
    of_epochs.to_csv(tmp_path / "joint_results.csv", index=False)
    written = plot_updates(tmp_path) + plot_epochs(tmp_path)
    assert [path.name for path in written] == ["gradnorm.png", "gradnorm.pdf", "joint_results.png", "joint_results.pdf"]
    for path in written:
        assert path.read_bytes()[:4] == (b"%PDF" if path.suffix == ".pdf" else b"\x89PNG")
    assert Image.open(written[0]).size[0] > 1500
    assert not list(tmp_path.glob("*.partial*"))


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert plot_updates(tmp_path) == plot_epochs(tmp_path) == []
    updates(0).to_csv(tmp_path / "gradnorm.csv", index=False)
    assert plot_updates(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["gradnorm.csv"]


def test_what_was_drawn_before_leaves_no_trace(tmp_path):
    epochs(3).to_csv(tmp_path / "joint_results.csv", index=False)
    before = plot_epochs(tmp_path)[0].read_bytes()
    with matplotlib.rc_context():
        seaborn.set_theme(font_scale=2)  # as upstream's confusion matrix does
        settings = dict(matplotlib.rcParams)
        assert plot_epochs(tmp_path)[0].read_bytes() == before
        assert dict(matplotlib.rcParams) == settings


def test_the_best_epoch_is_the_one_that_upstream_kept():
    rows = epochs(4)
    rows["fitness"] = [0.1, 0.7, 0.7, math.nan]  # it saves best.pt again where the fitness is equal
    assert best_row(rows)["epoch"] == 2
    assert "epoch 2, kept as best.pt (fitness 0.700)" in epochs_figure(rows)._supxlabel.get_text()
    rows["fitness"] = math.nan
    assert best_row(rows) is None and "best.pt" not in epochs_figure(rows)._supxlabel.get_text()


def test_panels_of_the_epochs_show_their_columns():
    rows = epochs(5)
    detection, classification, *losses = epochs_figure(rows, majority=0.6).axes
    found = {line.get_label(): list(line.get_ydata()) for line in (*detection.lines, *classification.lines)}
    for label, column in (("recall", "recall"), ("mAP50-95", "mAP50-95"), ("balanced accuracy", "balanced_accuracy")):
        assert found[label] == rows[column].tolist()
    assert found["accuracy of the majority class"] == [0.6, 0.6]
    for axis, name in zip(losses, ("box_loss", "obj_loss", "cls_loss", "classification_loss"), strict=True):
        assert [list(line.get_ydata()) for line in axis.lines[:2]] == [
            rows[f"{split}_{name}"].tolist() for split in ("train", "val")
        ]


@pytest.mark.parametrize(
    ("facts", "share"),
    [({"data": {"val": {"image_classes": [2, 6, 0]}}}, 0.75), ({"data": {"val": {"image_classes": [0, 0]}}}, None), ({}, None)],
)
def test_majority_share(facts, share):
    assert majority_share(facts) == share


def mosaic(picture: Path, count: int, predicted: bool, probabilities: torch.Tensor, classes: torch.Tensor) -> np.ndarray:
    """Draw `count` black images of 200 px with a box over each tile's corner; the picture's pixels."""
    columns = [[i, 0, 0.2, 0.2, 0.4, 0.4] for i in range(count)]
    targets = np.array([[i, 0, 40, 40, 80, 80, 0.9] for i in range(count)]) if predicted else torch.tensor(columns)
    module, images = upstream("val"), torch.zeros(count, 3, 200, 200)

    def badges(of_predictions: bool) -> list:
        assert of_predictions is predicted
        return (
            answer_badges(OUTPUTS, probabilities, {CLASS: classes}) if of_predictions else label_badges(OUTPUTS, {CLASS: classes})
        )

    with badges_on_mosaics(module, badges):
        module.plot_images(images, targets, [f"folder/{i}.jpg" for i in range(count)], picture, {0: "AR"})
    assert module.plot_images is upstream("utils.plots").plot_images
    return np.asarray(Image.open(picture))


def badge_at(pixels: np.ndarray, tile: int, side: int) -> tuple[int, int, int]:
    """The colour just inside the left end of a tile's badge; tiles go down, then to the right."""
    x, y = 200 * (tile // side), 200 * (tile % side)
    return tuple(int(value) for value in pixels[y + 9, x + 5])


def test_words_on_the_tiles():
    probabilities = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.2, 0.7], [0.2, 0.6, 0.2]])
    classes = torch.tensor([0, 1, -1])
    assert [badge.text for badge in label_badges(OUTPUTS, {CLASS: classes})] == ["PSAX", "PLAX/long", "no class"]
    texts = [badge.text for badge in answer_badges(OUTPUTS, probabilities, {CLASS: classes})]
    assert texts == ["PSAX 0.90", "A4C 0.70\ntrue: PLAX/long", "PLAX/long 0.60"]


def test_words_of_several_outputs_on_the_tiles():
    outputs = read_outputs({"finding": {"labels": ["a", "b"]}, "ef": {"value": "percent", "range": [0, 100]}})
    targets = {"finding": torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]]), "ef": torch.tensor([torch.nan, torch.nan])}
    assert [badge.text for badge in label_badges(outputs, targets)] == ["finding: a", "no label"]
    badges = answer_badges(outputs, torch.tensor([[0.9, 0.8, 51.0], [0.1, 0.2, 33.3]]), targets)
    assert badges[0].text == "finding: a 0.90, b 0.80 (true a)\nef: 51 percent" and badges[0].colour == mosaics.WRONG
    assert badges[1].text == "finding: none\nef: 33.3 percent" and badges[1].colour == mosaics.NONE


def test_figures_of_several_outputs():
    figure = epochs_figure(epochs(4, THREE), 0.4, THREE)
    titles = [axis.get_title(loc="left").split("$  ")[-1] for axis in figure.axes]
    assert [title for title in titles if title] == [
        "Detection, validation", "Classification, validation", "finding, validation", "ef, validation",
        "Box loss", "Objectness loss", "Box class loss", "Classification loss", "finding loss", "ef loss",
    ]  # fmt: skip
    rows = updates(6, THREE)
    figure = updates_figure(rows, {"weight_sum": 4.0}, THREE)
    steps = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_ydata()) == 7]
    columns = [f"{task}_weight" for task in ("detection", "classification", "finding", "ef")]
    for line, column in zip(steps, columns, strict=True):
        assert list(line[1:]) == rows[column].tolist()


@pytest.mark.parametrize(("count", "side"), [(1, 1), (4, 2), (20, 4)])
def test_each_tile_has_its_own_badge_above_the_boxes(tmp_path, count, side):
    classes = torch.arange(count) % 4 - 1
    probabilities = torch.eye(3)[[0] * count]
    labels = mosaic(tmp_path / "labels.png", count, False, probabilities, classes)
    predictions = mosaic(tmp_path / "pred.png", count, True, probabilities, classes)
    for tile in range(min(count, 16)):
        image_class = int(classes[tile])
        assert badge_at(labels, tile, side) == (mosaics.NONE if image_class < 0 else mosaics.LABEL)
        expected = mosaics.NONE if image_class < 0 else mosaics.RIGHT if image_class == 0 else mosaics.WRONG
        assert badge_at(predictions, tile, side) == expected


def test_a_mosaic_without_any_prediction(tmp_path):
    module, classes = upstream("val"), torch.tensor([0, 1])
    with badges_on_mosaics(
        module, lambda predicted: answer_badges(OUTPUTS, torch.eye(3)[:2], {CLASS: classes}) if predicted else []
    ):
        module.plot_images(torch.zeros(2, 3, 64, 64), np.zeros((0, 7)), ["a.jpg", "b.jpg"], tmp_path / "pred.png", ["AR"])
    assert (tmp_path / "pred.png").is_file()


def test_texts_of_a_figure_get_the_families_that_have_their_letters(monkeypatch):
    fonts = upstream("utils.fonts")
    stix, dejavu = (Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf" for name in ("STIXGeneral", "DejaVuSans"))
    monkeypatch.setattr(fonts, "installed", lambda: {str(stix): "STIXGeneral"})
    letter = next(c for c in map(chr, sorted(fonts.letters_of(str(stix)) - fonts.letters_of(str(dejavu)))) if c.isalpha())
    figure = Figure()
    axis = figure.subplots()
    axis.set_xticks([0, 1], [letter, "a"])
    axis.set_title("é")
    fonts.give_letters(figure)
    assert [label.get_fontfamily() for label in axis.get_xticklabels()] == [["sans-serif", "STIXGeneral"], ["sans-serif"]]
    assert axis.title.get_fontfamily() == ["sans-serif"]


def test_a_picture_that_cannot_be_written_is_one_error_and_nothing_is_half_written(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    epochs(2).to_csv(tmp_path / "joint_results.csv", index=False)
    with pytest.raises(WriteError, match=r"joint_results\.png cannot be written: .*No space left"):
        plot_epochs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["joint_results.csv"]


@pytest.mark.parametrize(("balancer", "place"), [("gradnorm", "W"), ("fixed", "W"), ("pcgrad", "z"), ("cagrad", "z")])
def test_norms_are_named_by_where_they_are_measured(balancer, place):
    titles = [axis.get_title("left") for axis in updates_figure(updates(4), {"balancer": balancer}).axes[2:4]]
    assert all(rf"\nabla_{place} L_i" in title for title in titles)
