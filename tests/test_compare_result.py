"""What `write_comparison` makes of finished runs: every figure from their files, whole pages, nothing guessed."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from comparison_folder import TRUTH, read_csv, run_contents, write_comparison_folder
from run_folder import epochs, facts, metrics, options, several, updates, write_csv
from test_report import Page, check_tables

from gradnorm_plugin.compare.figure_tables import write_methods, write_runs
from gradnorm_plugin.compare.latency import Latency, Time
from gradnorm_plugin.compare.methods import METHODS, Method, methods_of
from gradnorm_plugin.compare.page import compose_comparison, write_comparison
from gradnorm_plugin.compare.plan import FOLD, CompareError
from gradnorm_plugin.compare.results import COSTS, Outcome, figures_of, gradients_of, read_outcome
from gradnorm_plugin.compare.verdicts import best_joint, cheapest, keep_up
from gradnorm_plugin.report.blocks import LANGUAGES, Wording, catalogue
from gradnorm_plugin.report.compose import render_html, render_markdown
from gradnorm_plugin.report.run_files import ReportError
from gradnorm_plugin.run_folder import CLASSIFICATION, image_tasks

LATENCY = Latency("CPU, 2 threads", 320, (Time(("detection-only",), 20.0, 1.0), Time(("gradnorm", "fixed-1-1"), 22.0, 1.1)))
ALONE = ["detection-only", "classification-only"]
FIGURES, GRADIENTS = figures_of((CLASSIFICATION,)), gradients_of((CLASSIFICATION,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every method on three seeds."""
    return write_comparison_folder(tmp_path_factory.mktemp("whole") / "exp", count=5)


@pytest.fixture(scope="module")
def outcome(folder: Path) -> Outcome:
    return read_outcome(folder)


def markdown(outcome: Outcome, lang: str = "en", latency: Latency | None = None, reason: str | None = None, **more: bool) -> str:
    """The page's Markdown without escapes, in single spaces."""
    say = Wording(lang, outcome.tasks)
    text = render_markdown(compose_comparison(outcome, latency, reason, say, **more), say, outcome.root)
    return " ".join(re.sub(r"\\(.)", r"\1", text).replace("`", "").split())


def scored(detection: float, balanced: float, **more: dict) -> dict:
    """Files of a run that ended with these headline figures."""
    found = metrics()
    found["detection"]["mAP50-95"], found["classification"]["balanced_accuracy"] = detection, balanced
    return {"joint_metrics": found, **more}


def test_a_run_is_read_from_its_files(tmp_path):
    model = {"parameters": 1000, "head_parameters": 10, "gflops": 4.0, "total_parameters": 1500, "total_gflops": 6.5}
    contents = {
        "joint_metrics": metrics(),
        "run": facts(seconds=60.0, model=model, peak_memory_mb=321.5),
        "joint_results": epochs(4),
        "gradnorm": updates(),
        "opt": options(balancer="gradnorm"),
    }
    methods = ["detection-only", "gradnorm"]
    written = write_comparison_folder(tmp_path, methods, [5], changes={(name, 5): contents for name in methods})
    alone, run = read_outcome(written).runs
    assert {name: run.values[name] for name in COSTS} == {
        "parameters": 1500, "gflops": 6.5, "seconds_per_epoch": 15.0, "peak_memory_mb": 321.5,
    }  # fmt: skip
    assert {name: run.values[name] for name in GRADIENTS} == pytest.approx(
        {
            "cosine": 0.1 / 3, "conflicting_share": 1 / 3, "measured_steps": 12, "detection_weight": 3.97,
            "classification_weight": 0.03, "detection_norm_before_clip": 8.0, "head_norm_before_clip": 0.25,
        }
    )  # fmt: skip
    assert [run.values[name] for name in FIGURES["detection"]] == [0.585, 0.903, 0.71, 0.927, 0.601]
    assert [run.values[name] for name in FIGURES["classification"]] == [0.978, 0.982, 0.964]
    assert (run.seed, run.images, run.measured_at) == (5, 183, "weights")
    # the detector alone: it needs no head, and says nothing of classes
    assert (alone.values["parameters"], alone.values["gflops"]) == (1000, 4.0)
    assert not set(FIGURES["classification"]) & set(alone.values) and set(alone.curves) == {"mAP50-95"}


def test_older_facts_and_missing_tables(tmp_path):
    """Without totals, memory, epochs and updates: what is known is used, the rest is absent."""
    contents = {"run": facts(), "joint_results": None, "gradnorm": None, "opt": None}
    (run,) = read_outcome(write_comparison_folder(tmp_path, ["gradnorm"], [0], changes={("gradnorm", 0): contents})).runs
    assert (run.values["parameters"], run.values["gflops"]) == (2_000_000, 4.25)
    assert not {"seconds_per_epoch", "peak_memory_mb", "cosine", "detection_weight"} & set(run.values) and run.curves == {}


@pytest.mark.parametrize(("method", "place"), [("pcgrad", "output"), ("cagrad", "output"), ("gradnorm", "weights")])
def test_where_the_gradients_are_measured(outcome, method, place):
    assert {run.measured_at for run in outcome.of(method)} == {place}


def test_single_tasks_have_no_figures_of_the_other(outcome):
    assert outcome.values("classification-only", "mAP50") == {} and outcome.values("detection-only", "accuracy") == {}
    assert outcome.difference("detection-only", "mAP50") is None
    assert outcome.difference("gradnorm", "mAP50").count == 3


def test_unfinished_runs_are_named_and_not_counted(tmp_path):
    finished = [("gradnorm", 0), ("gradnorm", 2), ("detection-only", 0)]
    contents = {("gradnorm", 2): {**run_contents("gradnorm", 2, 2), "run": facts(finished=None)}}
    found = read_outcome(
        write_comparison_folder(tmp_path, ["detection-only", "gradnorm"], finished=finished, count=2, changes=contents)
    )
    assert [(method.name, seeds) for method, seeds in found.missing] == [("detection-only", [1, 2]), ("gradnorm", [1, 2])]
    text = markdown(found)
    assert "2 of 6 runs are finished" in text and "Finished runs | 2 of 6" in text
    assert (
        "Not finished (failed, still going or not begun): Detection only seed 1, Detection only seed 2, GradNorm seed 1" in text
    )
    assert "What a joint method costs a task cannot be said: no finished run of Classification only." in text
    assert "The time of a prediction is measured when all runs are finished." in text


def test_without_a_finished_run(tmp_path):
    written = write_comparison(write_comparison_folder(tmp_path, finished=[]))
    assert [file.name for file in written] == ["comparison.csv", "runs.csv", "comparison.md", "comparison.html"]
    assert "No run is finished yet" in written[2].read_text(encoding="utf-8")
    rows = read_csv(written[0])
    assert [row["method"] for row in rows] == list(TRUTH) and {row["mAP50_n"] for row in rows} == {"0"}


def test_who_keeps_up_and_who_is_cheapest(tmp_path):
    """Detection alone 0.5 ± 0.1, classification alone 0.8 ± 0: the floors are 0.4 and 0.8."""
    results = {
        "detection-only": [(0.4, 0), (0.5, 0), (0.6, 0)],
        "classification-only": [(0, 0.8)] * 3,
        "fixed-1-1": [(0.39, 0.9)] * 3,
        "dwa": [(0.41, 0.8)] * 3,
        "gradnorm": [(0.41, 0.79)] * 3,
        "uncertainty": [(0.45, 0.81)] * 3,
    }
    changes = {
        (name, seed): scored(*pair, run=facts(seconds=20.0 if name == "dwa" else 30.0))
        for name, pairs in results.items()
        for seed, pair in enumerate(pairs)
    }
    found = read_outcome(write_comparison_folder(tmp_path, results, count=2, changes=changes))
    kept = keep_up(found)
    assert [method.name for method in kept] == ["dwa", "uncertainty"]
    assert best_joint(found).name == "uncertainty"
    assert [[method.name for method in cheapest(found, kept, cost)[0]] for cost in ("parameters", "seconds_per_epoch")] == [
        ["dwa", "uncertainty"], ["dwa"],
    ]  # fmt: skip
    text = markdown(found)
    for sentence in (
        "Not below either task alone, within its spread: DWA, Uncertainty.",
        "Below detection alone by more than its spread (mAP50-95): Fixed 1 / 1.",
        "Below classification alone by more than its spread (balanced accuracy): GradNorm.",
        "Shortest training among those that are not below: DWA (10 s an epoch).",
        "Fewest parameters among those that are not below: DWA, Uncertainty (2,000,000).",
        "is Uncertainty: 0.450 ± 0.000 and 0.810 ± 0.000.",
        "mAP50-95, Uncertainty | 0.450 | Detection only: 0.500 ± 0.100",
    ):
        assert sentence in text, sentence


def test_one_seed_has_no_spread_and_no_interval(tmp_path):
    changes = {("gradnorm", 0): scored(0.512, 0.75), ("detection-only", 0): scored(0.5, 0.1)}
    found = read_outcome(write_comparison_folder(tmp_path, [*ALONE, "gradnorm"], [0], count=2, changes=changes))
    text = markdown(found)
    assert "One seed. How much the figures would move" in text and " ± 0" not in text
    assert "mAP50-95, one pair only and so no interval: GradNorm." in text and "| +0.012 |" in text
    row = read_csv(write_methods(found, None, tmp_path / "comparison.csv"))[2]
    assert (row["mAP50-95_mean"], row["mAP50-95_sd"], row["mAP50-95_n"], row["mAP50-95_diff_low"]) == ("0.512", "", "1", "")
    assert float(row["mAP50-95_diff"]) == pytest.approx(0.012)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_folds_are_called_so_and_what_they_share_is_said(lang, tmp_path, monkeypatch):
    monkeypatch.setattr("gradnorm_plugin.compare.page.measure_latency", lambda outcome: None)
    write_comparison(write_comparison_folder(tmp_path, ["gradnorm", "detection-only"], (0, 1), count=5, unit=FOLD), lang)
    page, rows = (tmp_path / "comparison.md").read_text(), read_csv(tmp_path / "runs.csv")
    said = {
        "en": ("runs with the same fold", "any two folds share", "folds: 2", "Folds"),
        "zh-TW": ("任兩折", "折：2", "共 2 個折"),
    }
    assert all(text.lower() in page.lower() for text in said[lang]), page
    assert "seed" not in page and "種子" not in page
    assert [(row["fold"], row["folder"]) for row in rows[:2]] == [("0", "gradnorm/fold0"), ("1", "gradnorm/fold1")]


def test_spreadsheets_hold_every_figure(outcome, tmp_path):
    methods = {row["method"]: row for row in read_csv(write_methods(outcome, LATENCY, tmp_path / "comparison.csv"))}
    runs = {(row["method"], int(row["seed"])): row for row in read_csv(write_runs(outcome, tmp_path / "runs.csv"))}
    assert list(methods) == list(TRUTH) and len(runs) == 30
    names = [name for of in FIGURES.values() for name in of]
    for run in outcome.runs:
        row = runs[run.method.name, run.seed]
        assert row["finished"] == "yes" and (outcome.root / row["folder"]).is_dir()
        for name in (*names, *COSTS, *GRADIENTS):
            found = float(row[name]) if row[name] else math.nan
            assert found == pytest.approx(run.values.get(name, math.nan), rel=1e-5, nan_ok=True)
    for name, row in methods.items():
        for figure in names:
            column = [float(runs[name, seed][figure]) for seed in range(3) if runs[name, seed][figure]]
            assert int(row[f"{figure}_n"]) == len(column)
            if column:
                assert float(row[f"{figure}_mean"]) == pytest.approx(sum(column) / 3, rel=1e-4)
    expected = outcome.difference("gradnorm", "recall")
    found = [float(methods["gradnorm"][f"recall_diff{part}"]) for part in ("_low", "", "_high")]
    assert found == pytest.approx([expected.interval[0], expected.mean, expected.interval[1]], rel=1e-4)
    assert (methods["gradnorm"]["latency_ms"], methods["gradnorm"]["latency_ratio"]) == ("22", "1.1")
    assert methods["dual"]["latency_ms"] == "" and methods["classification-only"]["mAP50_mean"] == ""


def test_tables_hold_mean_and_spread(outcome):
    text = markdown(outcome, latency=LATENCY)
    spread = outcome.spread("gradnorm", "mAP50-95")
    assert f"{spread.mean:.3f} ± {spread.sd:.3f}" in text
    assert "| Detection only | 3 |" in text and "| – | – | – |" in text  # no classification figures
    assert "1,860,000 (1.05×)" in text and "22 (1.10×)" in text and "320 px, CPU, 2 threads" in text
    assert "the shared layer's output" in text and "last shared weights" in text
    assert "--data data/mine.yaml --epochs 5" in text and "--balancer fixed --initial-weights 1 0.01" in text
    assert "nan" not in text and "None" not in text


def test_predictions_that_do_not_hold_are_said_plainly(outcome):
    text = markdown(outcome, predictions=True)
    assert "Of the 6 predictions 0 hold, 6 came out below, 0 above, and 0 are not measured." in text
    assert re.search(r"\| Precision \| 4 to 6 times \| 1\.\d\d times \| .* \| below: 1\.\d\d times, not 4 to 6 times \|", text)
    assert "These predictions do not hold on this data: mAP50-95, mAP50, Precision, Recall, F1, Accuracy." in text
    assert "85 % to 90 %" in text


def test_the_history_of_this_project_is_on_no_page_unless_asked_for(outcome):
    assert not re.search(
        r"predictions? (that )?(do )?(not )?hold|original report|6 predictions", markdown(outcome), re.IGNORECASE
    )


def test_the_clock_is_no_measure_of_the_work(outcome):
    assert "each run was trained at another time" in markdown(outcome)


def test_why_a_prediction_was_not_timed_is_said(outcome):
    assert "could not be measured: best.pt is not there" in markdown(outcome, reason="best.pt is not there")


def test_pages_are_whole_and_hold_everything_themselves(tmp_path):
    root = write_comparison_folder(tmp_path / "a <b>&'q'", [*ALONE, "gradnorm"], [0, 1], count=2)
    written = {file.name: file for file in write_comparison(root)}
    assert set(written) == {
        "comparison.csv", "runs.csv", "comparison.md", "comparison.html",
        "comparison.png", "comparison.pdf", "curves.png", "curves.pdf",
    }  # fmt: skip
    assert not list(root.glob("*.partial"))
    for name in ("comparison", "curves"):
        assert [(root / f"{name}.{kind}").read_bytes()[:4] for kind in ("png", "pdf")] == [b"\x89PNG", b"%PDF"]
    text = written["comparison.md"].read_text(encoding="utf-8")
    for link in re.findall(r"^!\[.*\]\((.*)\)$", text, re.MULTILINE):
        assert (root / unquote(link)).is_file()
    assert Page(written["comparison.html"].read_text(encoding="utf-8")).all("html") == [{"lang": "en"}]
    for lang in LANGUAGES:
        say = Wording(lang)
        report = compose_comparison(read_outcome(root), None, None, say)
        page = Page(render_html(report, say))
        assert [image["src"][:22] for image in page.all("img")] == ["data:image/png;base64,"] * 2
        assert not page.all("script") and not page.all("link") and not page.all("b")
        assert len(page.all("caption")) == len(page.all("table")) == check_tables(render_markdown(report, say, root)) - 1  # tiles


def several_outputs(folder: Path, **balanced: float) -> Path:
    """Detection alone, each of three image outputs alone, and two joint methods; `view` has balanced accuracy as told."""
    usual = several()
    tasks = image_tasks(usual["run"])
    names = ["detection-only", "view-only", "finding-only", "grade-only", "gradnorm", "dwa"]
    changes = {}
    for name in names:
        for seed in (0, 1):
            contents = several(4)
            contents["joint_metrics"]["outputs"]["view"]["balanced_accuracy"] = balanced.get(name, 0.8) + 0.01 * seed
            contents["joint_metrics"]["outputs"]["grade"]["kappa_2"] = -12.375 + 2 * (name == "dwa") + (name == "dwa") * seed
            changes[name, seed] = contents
    return write_comparison_folder(folder, [methods_of(tasks)[name] for name in names], [0, 1], changes=changes, tasks=tasks)


def fixed_grid(folder: Path, *products: float) -> Outcome:
    grid = dict(zip(("fixed-1-0.1", "fixed-1-0.01", "fixed-1-0.001"), products, strict=False))
    changes = {(name, 0): scored(0.5, of) for name, of in grid.items()}
    return read_outcome(write_comparison_folder(folder, [*grid, "gradnorm"], [0], count=2, changes=changes))


def test_the_best_of_the_grid_is_marked_and_how_it_was_chosen_said(tmp_path):
    text = markdown(fixed_grid(tmp_path / "whole", 0.8, 0.7, 0.6))
    assert "Of the fixed ratios Fixed 1 / 0.1, Fixed 1 / 0.01, Fixed 1 / 0.001, Fixed 1 / 0.1 has the highest product" in text
    assert "| Fixed 1 / 0.1 (best of the fixed ratios, by these images) | 1 |" in text and "| Fixed 1 / 0.01 | 1 |" in text
    assert "best of the fixed" not in markdown(fixed_grid(tmp_path / "part", 0.8, 0.7))  # 0.01 is a method of its own


def with_separate(folder: Path) -> Path:
    """GradNorm 0.02 above a separate classifier, which has no boxes, and upstream's own table of epochs."""
    names = ["detection-only", "separate-classifier", "gradnorm"]
    changes = {}
    for seed in (0, 1, 2):
        changes["gradnorm", seed] = scored(0.5, 0.82 + 0.01 * seed)
        changes["detection-only", seed] = {**scored(0.5, 0), "run": facts(seconds=20.0)}
        alone = {key: value for key, value in scored(0, 0.8 + 0.01 * seed)["joint_metrics"].items() if key != "detection"}
        model = {"parameters": 1_000_000, "head_parameters": 0, "total_parameters": 1_000_000, "total_gflops": 3.0}
        run = facts(seconds=10.0, model=model)
        changes["separate-classifier", seed] = {"joint_metrics": alone, "joint_results": None, "gradnorm": None, "run": run}
    root = write_comparison_folder(folder, names, [0, 1, 2], count=2, changes=changes)
    for seed in (0, 1, 2):
        write_csv(
            root / "separate-classifier" / f"seed{seed}" / "results.csv", {"epoch": [0, 1], "metrics/accuracy_top1": [1, 1]}
        )
    return root


def test_a_separate_classifier_is_the_other_baseline_and_two_networks_have_their_price(tmp_path):
    found = read_outcome(with_separate(tmp_path / "exp"))
    assert not found.of("separate-classifier")[0].method.detects and found.joint_methods == [METHODS["gradnorm"]]
    text = markdown(found)
    for sentence in (
        "Balanced accuracy minus the separate classifier, the whole interval above 0: GradNorm.",
        "Difference from the separate classifier, classification: mean of runs with the same seed",
        "| +0.020 (+0.020 to +0.020) |",
        "| Separate classifier | 1,000,000 (0.53×) | 3 (0.71×) | 5 (0.50×) |",
        "| Two networks: Detection only and Separate classifier | 2,900,000 (1.53×) | 7.25 (1.71×) | 15 (1.50×) |",
    ):
        assert sentence in text, sentence


def test_every_image_output_is_compared_with_itself_alone(tmp_path):
    found = read_outcome(several_outputs(tmp_path / "exp", gradnorm=0.7, dwa=0.9))
    assert [method.name for method in keep_up(found)] == ["dwa"] and best_joint(found).name == "dwa"
    alone = found.of("finding-only")[0]
    assert set(alone.curves) == {"finding_macro_F1"} and "view_accuracy" not in alone.values and "mAP50" not in alone.values
    assert found.of("gradnorm")[0].values["cosine_view_finding"] == 0.05
    text = markdown(found)
    for sentence in (
        "Not below any task alone, within its spread: DWA.",
        "Below view alone by more than its spread (view: Balanced accuracy): GradNorm.",
        "is DWA: mAP50-95 0.601 ± 0.000, view: Balanced accuracy 0.905 ± 0.007, finding: Macro-F1 0.627 ± 0.000, grade: kappa 2",
        "grade: kappa 2, DWA | -9.875 | grade only: -12.38 ± 0",
        "view minus view alone: mean difference of runs with the same seed",
        "| GradNorm | 2 | +0.000 (+0.000 to +0.000) | -0.100 (-0.100 to -0.100) |",
        "| DWA | 2 | +2.5 (-3.853 to +8.853) |",
        "grade: kappa 2, the interval includes 0: GradNorm, DWA.",
        "| GradNorm | -0.5 | -0.3 | -0.05 | 0.05 | 0.3 | 0.5 |",
        "Weight at the end, grade",
    ):
        assert sentence in text, sentence
    assert "lassification" not in text and "nan" not in text and "None" not in text
    rows = {row["method"]: row for row in read_csv(write_methods(found, None, tmp_path / "comparison.csv"))}
    assert float(rows["dwa"]["view_balanced_accuracy_diff"]) == pytest.approx(0.1)
    assert (rows["dwa"]["grade_kappa_2_mean"], rows["view-only"]["grade_kappa_2_mean"]) == ("-9.875", "")
    assert (rows["gradnorm"]["grade_weight_mean"], rows["gradnorm"]["cosine_finding_grade_mean"]) == ("0.25", "0.5")


def variants(folder: Path) -> list[tuple[Outcome, Latency | None, str | None]]:
    """Comparisons that between them call for every text."""
    good, high = scored(0.9, 0.9), metrics()
    high["detection"] |= {"recall": 0.95, "precision": 0.99}
    low = metrics()
    low["detection"] |= {"recall": 0.4, "precision": 0.1}
    predicted = {("gradnorm", 0): {"joint_metrics": high}, ("fixed-1-0.01", 0): {"joint_metrics": low}}
    seeds = [(name, seed) for name in (*ALONE, "gradnorm", "dwa") for seed in (0, 1, 2)]
    better = {
        (name, seed): scored(0.5 + 0.01 * seed + 0.2 * (name == "gradnorm"), 0.5 + 0.01 * seed + 0.2 * (name == "dwa"))
        for name, seed in seeds
    }
    bad = {**{key: good for key in seeds if key[0] in ALONE}, ("gradnorm", 0): {"joint_results": None, "gradnorm": None}}
    found = [
        write_comparison_folder(folder / "whole", count=5),
        write_comparison_folder(folder / "none", finished=[]),
        write_comparison_folder(folder / "better", [*ALONE, "gradnorm", "dwa"], changes=better, count=2),
        write_comparison_folder(folder / "bad", [*ALONE, "fixed-1-1"], changes=bad, count=2),
        write_comparison_folder(folder / "one", [*ALONE, "gradnorm", "fixed-1-0.01"], [0], changes=predicted, count=2),
        write_comparison_folder(
            folder / "few", ["gradnorm", Method("mine", "mine", ())], [0, 1], finished=[("gradnorm", 0)], changes=bad
        ),
        write_comparison_folder(folder / "short", ["gradnorm"], [0], count=1),
        several_outputs(folder / "outputs", gradnorm=0.7, dwa=0.9),
        several_outputs(folder / "worse", gradnorm=0.7, dwa=0.7),
        fixed_grid(folder / "grid", 0.8, 0.7, 0.6).root,
        with_separate(folder / "separate"),
    ]
    for name in ("comparison.png", "curves.png"):
        (folder / "outputs" / name).write_bytes(b"")
    for name in ("comparison.png", "curves.png"):
        (found[0] / name).write_bytes(b"")
    outcomes = [read_outcome(root) for root in found]
    plan = outcomes[0].plan
    outcomes.append(replace(outcomes[0], plan=replace(plan, flags=(*plan.flags, "--noval"))))
    outcomes.append(replace(outcomes[0], plan=replace(plan, unit=FOLD)))
    return [(outcomes[0], LATENCY, None), (outcomes[0], None, "why"), *((of, None, None) for of in outcomes[1:])]


def test_every_text_is_used_and_says_the_same_figures_in_every_language(tmp_path, monkeypatch):
    used: set[str] = set()
    original = Wording.__call__

    def noted(self: Wording, key: str, **values: object) -> object:
        other = f"{key}_outputs"
        used.add(other if self.several and other in catalogue("en") else key)
        return original(self, key, **values)

    monkeypatch.setattr(Wording, "__call__", noted)
    for found, latency, reason in variants(tmp_path):
        english, chinese = (
            re.findall(r"\d[\d,.]*\d|\d", markdown(found, lang, latency, reason, predictions=True)) for lang in LANGUAGES
        )
        assert sorted(english) == sorted(chinese)
    assert {key for key in catalogue("en") if key.startswith("compare")} - used == set()


def test_without_validation_no_checkpoint_was_chosen(tmp_path):
    outcome = read_outcome(write_comparison_folder(tmp_path, ["gradnorm"], [0], count=2))
    chosen, last = "checkpoint was chosen on the very images", "is measured at its last epoch"
    assert chosen in markdown(outcome) and last not in markdown(outcome)
    without = replace(outcome, plan=replace(outcome.plan, flags=(*outcome.plan.flags, "--noval")))
    assert last in markdown(without) and chosen not in markdown(without)


def test_a_broken_run_is_one_error(tmp_path):
    root = write_comparison_folder(tmp_path, ["gradnorm"], [0], count=2)
    (root / "gradnorm" / "seed0" / "joint_results.csv").write_text("epoch,accuracy\n0\n", encoding="utf-8")
    with pytest.raises(ReportError, match=r"joint_results\.csv:2 has 1 values, the header 2"):
        write_comparison(root)


def test_another_folder_is_no_comparison(tmp_path):
    with pytest.raises(CompareError, match=r"has no compare\.yaml: name the folder of a comparison"):
        write_comparison(tmp_path)


def test_an_unknown_language_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lang is 'de', expected one of en, zh-TW"):
        write_comparison(tmp_path, "de")


def test_baselines_are_methods():
    assert set(ALONE) <= set(METHODS)
