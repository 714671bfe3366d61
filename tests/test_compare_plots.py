"""The pictures of a comparison: what its runs say is what is drawn, legibly."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparison_folder import TRUTH, write_comparison_folder
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from run_folder import epochs
from test_compare_result import several_outputs

from gradnorm_plugin.compare import plots
from gradnorm_plugin.compare.curves import band, change_at_end, curves_figure, plot_curves
from gradnorm_plugin.compare.latency import Latency, Time
from gradnorm_plugin.compare.methods import METHODS, Method
from gradnorm_plugin.compare.plots import choice_figure, looks, plot_choice
from gradnorm_plugin.compare.results import Outcome, read_outcome

LATENCY = Latency("CPU", 320, (Time(("detection-only",), 20.0, 1.0), Time(("gradnorm",), 22.4, 1.1)))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return read_outcome(write_comparison_folder(tmp_path_factory.mktemp("comparison"), seeds=[0, 1], count=10))


Mark = tuple[object, object]
"""Marker and colour."""


def mark(line: Line2D) -> Mark:
    return line.get_marker(), line.get_color()


def legend(figure: Figure) -> list[tuple[str, Artist]]:
    """Words and handle of every entry."""
    (found,) = figure.legends
    return [(text.get_text(), handle) for text, handle in zip(found.get_texts(), found.legend_handles, strict=True)]


def markers(figure: Figure) -> dict[Mark, tuple[float, float]]:
    """The places of the methods in the first panel."""
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1 and line.get_markersize() == 6.5]
    return {mark(line): (line.get_xdata()[0], line.get_ydata()[0]) for line in lines}


def test_the_legend_names_every_method_once_with_the_marker_of_the_panels(outcome):
    figure, look = choice_figure(outcome, LATENCY), looks(outcome.plan.methods)
    collapsed = f"CAGrad ({outcome.spread('cagrad', 'mAP50-95').mean:.3f})"
    joint = {collapsed if name == "cagrad" else METHODS[name].label: name for name in TRUTH if not name.endswith("only")}
    entries = legend(figure)
    assert sorted(text for text, _ in entries) == sorted([*joint, "Detection only", "Classification only", "as good as both"])
    shown = {joint[text]: mark(handle) for text, handle in entries if text in joint}
    assert shown == {name: (look[name].marker, look[name].colour) for name in joint.values()}
    assert set(shown.values()) == set(markers(figure))
    alone = {text: handle.get_color() for text, handle in entries if text.endswith("only")}
    assert alone == {METHODS[name].label: look[name].colour for name in ("detection-only", "classification-only")}
    costs = figure.axes[1]
    rows = [line for line in costs.lines if line.get_marker() not in {"None", "", None}]
    named = {label.get_text(): row for row, label in enumerate(costs.get_yticklabels())}
    beside = {line.get_ydata()[0]: mark(line) for line in rows}
    assert all(beside[named[METHODS[name].label]] == of for name, of in shown.items())


def test_nothing_is_outside_the_picture_or_on_something_else(tmp_path, monkeypatch):
    """All methods there are and some of the user's with longer names, drawn as `compare` does."""
    own = [Method(f"own-settings-{index}-of-mine", "", ()) for index in range(5)]
    found = read_outcome(write_comparison_folder(tmp_path, [*METHODS, *own], [0], count=1))
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "choice_figure", lambda *of: drawn.append(choice_figure(*of)) or drawn[0])

    def settle(figure: Figure, file: Path, **_: object) -> None:  # 300 dpi take seconds
        figure.draw_without_rendering()
        file.touch()

    monkeypatch.setattr(Figure, "savefig", settle)
    plot_choice(found, LATENCY)
    (figure,) = drawn
    (shown,) = figure.legends
    box = shown.get_window_extent()
    assert len(legend(figure)) == len(found.joint_methods) + 3  # each task alone, and the corner
    boxes = [text.get_window_extent() for text in shown.get_texts()]
    assert not any(one.overlaps(other) for index, one in enumerate(boxes) for other in boxes[:index])
    for inner in (box, *boxes, *(axis.get_tightbbox() for axis in figure.axes)):
        assert inner.x0 >= 0 and inner.y0 >= 0 and inner.x1 <= figure.bbox.x1 and inner.y1 <= figure.bbox.y1
    assert not any(box.overlaps(axis.get_tightbbox()) for axis in figure.axes)


def test_markers_stand_at_the_means_and_a_collapsed_one_at_the_edge(outcome):
    figure = choice_figure(outcome, None)
    found, look = markers(figure), looks(outcome.plan.methods)
    for method in outcome.joint_methods:
        detection, classification = (spread.mean for spread in outcome.headline(method.name))
        x, y = found[look[method.name].marker, look[method.name].colour]
        assert y == pytest.approx(classification)
        if method.name == "cagrad":
            low, high = figure.axes[0].get_xlim()
            assert detection < low < x < low + 0.1 * (high - low)
        else:
            assert x == pytest.approx(detection)
    dashed = [line for line in figure.axes[0].lines if line.is_dashed()]
    alone = [outcome.spread("detection-only", "mAP50-95").mean, outcome.spread("classification-only", "balanced_accuracy").mean]
    assert [dashed[0].get_xdata()[0], dashed[1].get_ydata()[0]] == pytest.approx(alone)


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_an_axis_ends_where_its_figure_must(outcome, value):
    runs = tuple(replace(run, values={**run.values, "balanced_accuracy": value}) for run in outcome.runs)
    axis = choice_figure(replace(outcome, runs=runs), None).axes[0]
    (low, high), ticks = axis.get_ylim(), axis.get_yticks()
    assert -0.005 < low < value + 0.005 and value - 0.005 < high < 1.005
    assert len(ticks) > 1 and 0 <= min(ticks) and max(ticks) <= 1


def test_a_task_that_is_not_learned_alone_does_not_shrink_the_panel(outcome):
    """Its line is far below the methods: the legend says where."""
    dropped = {"balanced_accuracy": 0.1}
    runs = [
        replace(run, values={**run.values, **dropped}) if run.method.name == "classification-only" else run
        for run in outcome.runs
    ]
    usual, low = choice_figure(outcome, None), choice_figure(replace(outcome, runs=tuple(runs)), None)
    words = [[text for text, _ in legend(figure)] for figure in (usual, low)]
    assert "Classification only" in words[0] and "Classification only (0.100)" in words[1]
    for figure in (usual, low):
        figure.draw_without_rendering()
    heights = [figure.axes[0].get_window_extent().height for figure in (usual, low)]
    assert heights[1] == pytest.approx(heights[0], rel=0.1)


def test_each_image_output_has_a_panel_and_a_colour(tmp_path):
    found = read_outcome(several_outputs(tmp_path / "exp", gradnorm=0.7, dwa=0.9))
    figure = choice_figure(found, None)
    assert [axis.get_ylabel() for axis in figure.axes[:3]] == ["view: balanced accuracy", "finding: macro F1", "grade: kappa 2"]
    look = looks(found.plan.methods, found.tasks)
    shown = {look["dwa"].marker: 0.905, look["gradnorm"].marker: 0.705}
    assert {m[0]: y for m, (_, y) in markers(figure).items()} == pytest.approx(shown)
    words = [text for text, _ in legend(figure)]
    assert sorted(words) == sorted(
        ["Detection only", "view only", "finding only", "grade only", "as good as both", "GradNorm", "DWA"]
    )
    (below,) = curves_figure(found).legends
    assert [text.get_text() for text in below.get_texts()][:4] == [
        "mAP50-95", "view balanced accuracy", "finding macro F1", "grade kappa 2",
    ]  # fmt: skip


def test_costs_are_beside_those_of_detection_alone(outcome):
    figure = choice_figure(outcome, LATENCY)
    panels = {axis.get_title("left").split("  ")[-1]: [text.get_text() for text in axis.texts][::-1] for axis in figure.axes[1:]}
    assert panels["Parameters"][:2] == ["1.77 (1.00×)", "1.86 (1.05×)"] and "3.05 (1.72×)" in panels["Parameters"]
    assert panels["Training"][-2:] == ["18.9 (1.05×)", "24.6 (1.37×)"]
    assert panels["Prediction"] == ["20.0 (1.00×)", "22.4 (1.10×)"]  # within rounds, as in the table
    assert "Prediction" not in {axis.get_title("left").split("  ")[-1] for axis in choice_figure(outcome, None).axes}


def test_each_method_has_a_look_of_its_own():
    own = [Method(f"own{index}", f"own{index}", ()) for index in range(20)]
    assert len(set(looks([*METHODS.values(), *own]).values())) == len(METHODS) + len(own)
    found = looks([*(method for method in METHODS.values() if not method.extra), *own])
    few = looks([own[0], METHODS["gradnorm"], METHODS["dwa"]])
    assert [few[name] for name in ("gradnorm", "dwa", "own0")] == [found[name] for name in ("gradnorm", "dwa", "own0")]


@pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")
@pytest.mark.parametrize(
    ("methods", "seeds"),
    [(["gradnorm"], [0]), (["detection-only", "classification-only"], [0, 1]), (["detection-only", "fixed-1-1", "cagrad"], [3])],
)
def test_few_runs_are_drawn_without_a_warning(tmp_path, methods, seeds):
    few = read_outcome(write_comparison_folder(tmp_path, methods, seeds, count=1))
    choice_figure(few, None).draw_without_rendering()
    curves_figure(few).draw_without_rendering()


def test_nothing_is_drawn_of_nothing(tmp_path):
    none = read_outcome(write_comparison_folder(tmp_path, ["gradnorm"], [0], finished=[]))
    assert plot_choice(none, None) == plot_curves(none) == []


def curves(folder: Path, *columns: list[float], noval: bool = False) -> Outcome:
    """GradNorm on as many seeds as there are columns of mAP50-95."""
    changes = {}
    for seed, column in enumerate(columns):
        count = len(column)
        rows = epochs(count, **{"mAP50-95": column, "balanced_accuracy": column})
        if noval:
            rows |= {name: [0.0] * (count - 1) + [0.5] for name in ("precision", "recall", "F1", "mAP50")}
            rows["accuracy"] = ["nan"] * (count - 1) + [0.5]
        changes["gradnorm", seed] = {"joint_results": rows}
    return read_outcome(write_comparison_folder(folder, ["gradnorm"], range(len(columns)), changes=changes))


def test_band_is_mean_lowest_and_highest_of_the_seeds_that_have_the_epoch(tmp_path):
    runs = curves(tmp_path, [0.1, 0.2, 0.6], [0.3, 0.4]).runs
    expected = [[0, 1, 2], [0.2, 0.3, 0.6], [0.1, 0.2, 0.6], [0.3, 0.4, 0.6]]
    assert np.allclose(band(runs, "mAP50-95"), expected)
    assert band([], "mAP50-95") is None


def test_epochs_that_were_not_measured_are_gaps(tmp_path):
    outcome = curves(tmp_path, [0.0, 0.0, 0.5], noval=True)
    assert [math.isnan(value) for value in outcome.runs[0].curves["mAP50-95"]] == [True, True, False]
    assert np.allclose(band(outcome.runs, "mAP50-95"), [[2], [0.5], [0.5], [0.5]])
    assert change_at_end(band(outcome.runs, "mAP50-95")) is None
    axis = curves_figure(outcome).axes[0]
    assert axis.get_xlim()[0] < 0 and axis.get_xlim()[1] > 2  # the whole training


def test_a_collapsed_run_is_no_gap(tmp_path):
    assert curves(tmp_path, [0.0, 0.0, 0.0]).runs[0].curves["mAP50-95"] == (0.0, 0.0, 0.0)


def test_change_at_the_end_is_that_of_the_last_fifth(tmp_path):
    outcome = curves(tmp_path, [0.01 * epoch for epoch in range(20)])
    assert change_at_end(band(outcome.runs, "mAP50-95")) == pytest.approx(0.19 - 0.15)
    assert change_at_end(None) is None


def test_panels_of_the_curves_show_the_means(outcome):
    figure = curves_figure(outcome)
    shown = {axis.get_title("left"): axis for axis in figure.axes if axis.get_visible()}
    assert list(shown) == [method.label for method in outcome.methods]
    drawn = [list(line.get_ydata()) for line in shown["GradNorm"].lines]
    for name in ("mAP50-95", "balanced_accuracy"):
        assert list(band(outcome.of("gradnorm"), name)[1]) in drawn
        assert list(band(outcome.of("detection-only" if name == "mAP50-95" else "classification-only"), name)[1]) in drawn
