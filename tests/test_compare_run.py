"""`compare`: what is refused before it starts, the order of the runs, what becomes of finished, broken and failing ones."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import cv2
import pytest
import yaml
from compare_driver import count
from joint_data import write_joint_dataset
from rich.console import Console
from run_folder import epochs, metrics, several, write_csv, write_run

from gradnorm_plugin.compare import runner
from gradnorm_plugin.compare.command import main, parse_options
from gradnorm_plugin.compare.live import LiveTable, Progress, current_progress, seconds_left
from gradnorm_plugin.compare.methods import METHODS, Method, methods_of
from gradnorm_plugin.compare.plan import CompareError, Plan, exclusive, is_finished, log_file, read_plan, run_folder, write_plan
from gradnorm_plugin.compare.planning import check_plan, extend_plan, make_plan
from gradnorm_plugin.compare.runner import FAILED, FINISHED, RUNNING, WAITING, Run, failure, make_runs
from gradnorm_plugin.run_folder import image_tasks
from gradnorm_plugin.upstream.checkout import REPOSITORY, find_checkout

DRIVER = Path(__file__).with_name("compare_driver.py")
OWN = Method("alpha0", "alpha0", ("--gradnorm-alpha", "0"), note="your own")
SCRATCH = ["--cfg", "yolov5n.yaml", "--weights", ""]
WORKER = """
import json, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir(parents=True)
(folder / "weights").mkdir()
print("training", flush=True)
time.sleep(float(sys.argv[2]))
if sys.argv[3] == "fail":
    sys.exit("ERROR: it diverged")
(folder / "run.json").write_text(json.dumps({"finished": "now", "seconds": 60.0}))
(folder / "joint_metrics.json").write_text("{}")
"""


def plan(*names: str, seeds: tuple[int, ...] = (0,), flags: tuple[str, ...] = ()) -> Plan:
    return Plan(tuple(METHODS[name] for name in names), seeds, flags, os.getcwd(), "2026-01-01T00:00:00+00:00")


def runs_of(root: Path, of: Plan, total: int = 4) -> list[Run]:
    return make_runs(root, of, {method.name: total for method in of.methods})


def error_of(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    """Status and last line of a comparison that must not start."""
    with pytest.raises(SystemExit) as ended:
        main([*flags], write=lambda root: pytest.fail("it started"))
    return ended.value.code, capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, str]]:
    """Processes of a few lines in place of trainings: by method, how long they take and how they end (`fail`)."""
    behaviour: dict[str, tuple[float, str]] = {}

    def command(run: Run, flags: object) -> list[str]:
        seconds, end = behaviour.get(run.method.name, (0.0, "well"))
        return [sys.executable, "-c", WORKER, str(run.folder), str(seconds), end]

    monkeypatch.setattr(runner, "command", command)
    return behaviour


def test_a_plan_is_read_as_it_was_written(tmp_path):
    detector = Method("own.det", "own.det", ("--balancer", "fixed"), classifies=False)
    written = Plan(
        (METHODS["dwa"], OWN, detector), (3, 1), ("--data", "häuser mit raum.yaml", "--weights", ""), "/a", "now", threads=3
    )
    write_plan(tmp_path, written)
    found = read_plan(tmp_path)
    assert found.methods[0] is METHODS["dwa"]
    assert [(m.name, m.flags, m.detects, m.classifies) for m in found.methods[1:]] == [
        ("alpha0", ("--gradnorm-alpha", "0"), True, True),
        ("own.det", ("--balancer", "fixed"), True, False),
    ]
    assert (found.seeds, found.flags, found.directory, found.started, found.threads) == ((3, 1), written.flags, "/a", "now", 3)
    contents = yaml.safe_load((tmp_path / "compare.yaml").read_text())
    assert contents["methods"] == ["dwa", "alpha0", "own.det"] and contents["seeds"] == [3, 1]


THREE = "image_outputs: {view: {classes: [P, Q]}, finding: {labels: [a, b]}, ef: {value: percent, range: [0, 100]}}\n"


@pytest.fixture
def outputs_yaml(tmp_path: Path) -> str:
    """A data yaml with an image output of each kind."""
    file = tmp_path / "outputs.yaml"
    file.write_text(f"train: a\nval: b\nnames: [a]\n{THREE}")
    return str(file)


def test_each_image_output_has_a_method_that_trains_it_alone(outputs_yaml, capsys):
    options = parse_options(["--data", outputs_yaml, *SCRATCH])
    assert [m.name for m in options.methods][:5] == ["detection-only", "view-only", "finding-only", "ef-only", "fixed-1-0.01"]
    trained = {m.name: [t for t in ("detection", "view", "finding", "ef") if m.trains(t)] for m in options.methods}
    assert trained["detection-only"] == ["detection"] and trained["finding-only"] == ["finding"]
    assert trained["gradnorm"] == ["detection", "view", "finding", "ef"]
    assert options.methods[2].flags == ("--balancer", "fixed", "--initial-weights", "0", "0", "1", "0", "--head", "pooled")
    assert parse_options(["--methods", "ef-only", "--data", outputs_yaml, *SCRATCH]).methods == (options.methods[3],)
    with pytest.raises(SystemExit):
        parse_options(["--data", outputs_yaml, "--list"])
    assert "view only: the joint network with the losses of all other tasks switched off" in capsys.readouterr().out


def test_a_grid_of_fixed_ratios_is_three_methods():
    chosen = parse_options(["--methods", "fixed-grid", "gradnorm", "fixed-1-0.01", *SCRATCH]).methods
    assert [method.name for method in chosen] == ["fixed-1-0.1", "fixed-1-0.01", "fixed-1-0.001", "gradnorm"]
    assert chosen[2].flags == ("--balancer", "fixed", "--initial-weights", "1", "0.001")


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--methods", "classification-only"], 2, "no method classification-only: take detection-only, view-only, finding-only"),
        (["--method", "view-only=--adam"], 2, "--method view-only: there is one of this name already"),
        (["--method", "a=--balancer fixed --initial-weights 1 0 1"], 1, "--method a: --initial-weights is for 3 tasks, but the"),
        (["--methods", "view-only", "--data", "nope.yaml"], 2, "(of the data: --data nope.yaml: File not found: nope.yaml)"),
    ],
)
def test_what_does_not_fit_the_image_outputs_is_refused(flags, status, message, outputs_yaml, tmp_path, capsys):
    found, line = error_of(capsys, "--data", outputs_yaml, *SCRATCH, "--project", str(tmp_path / "runs"), *flags)
    assert message in line and found == status and not (tmp_path / "runs").exists()


def test_a_plan_keeps_the_image_outputs_it_was_made_for(outputs_yaml, tmp_path):
    own = ["--method", "some=--balancer fixed --initial-weights 1 0 0.5 0"]
    line = ["--data", outputs_yaml, *SCRATCH, "--methods", "view-only", "gradnorm", *own]
    made = make_plan(parse_options(line))
    write_plan(tmp_path, made)
    found = read_plan(tmp_path)
    assert found.tasks == made.tasks and [task.headline for task in found.tasks] == [
        "view_balanced_accuracy", "finding_macro_F1", "ef_R2",
    ]  # fmt: skip
    assert [m.untrained for m in found.methods] == [("finding", "ef"), (), ("view", "ef")] and found.methods[:2] == made.methods[
        :2
    ]
    Path(outputs_yaml).write_text(f"train: a\nval: b\nnames: [a]\nclassification_names: [x, y]\n{THREE}")
    with pytest.raises(CompareError, match=r"was planned for the image outputs view \(classes\), .*, but the data have classif"):
        extend_plan(tmp_path, parse_options([*line, "--exist-ok"]))


def test_other_image_outputs_than_planned_are_refused_before_anything_starts(tmp_path):
    data = write_joint_dataset(tmp_path / "data", images=4, size=32)
    made = make_plan(parse_options(["--data", str(data), *SCRATCH, "--methods", "gradnorm"]))
    data.write_text(data.read_text().replace("classification_names:", "image_outputs: {view: {classes: [a, b, c]}}\nold:"))
    with pytest.raises(CompareError, match=r"gradnorm: this comparison was planned for .* but the data have view \(classes\)"):
        check_plan(made)


PLANNED = "methods: [dwa]\nseeds: [0]\nflags: []\nstarted: x\n"


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        PLANNED.replace("dwa", "nope"),
        "methods: [dwa]",
        "{",
        "a: \x00",
        f"{PLANNED}threads: 0",
        f"{PLANNED}threads: x",
        f"{PLANNED}folds: 99999999999",
    ],
)
def test_a_plan_that_cannot_be_used_is_named(text, tmp_path):
    with pytest.raises(CompareError, match="has no compare.yaml: name the folder of a comparison"):
        read_plan(tmp_path)
    (tmp_path / "compare.yaml").write_text(text)
    with pytest.raises(CompareError, match="compare.yaml is not as `compare` wrote it"):
        read_plan(tmp_path)


def test_methods_and_defaults():
    options = parse_options(["--epochs", "3", "--weights", "", "--jobs", "1000"])
    assert options.methods == tuple(m for m in METHODS.values() if not m.extra)
    assert options.seeds == (0, 1, 2) and options.threads is None
    assert options.flags == ("--epochs", "3", "--weights", "")
    options = parse_options(["--methods", "gradnorm", "dwa", "gradnorm", "--seeds", "2", "2", "--method", "a=--adam --x 'b c'"])
    assert [method.name for method in options.methods] == ["gradnorm", "dwa", "a"] and options.seeds == (2,)
    assert options.methods[-1].flags == ("--adam", "--x", "b c")
    assert [(m.detects, m.classifies) for m in METHODS.values()][:3] == [(True, False), (False, True), (True, True)]
    with pytest.raises(ValueError, match="method name '../up'"):
        Method("../up", "up", ())


def test_list_shows_every_method_with_its_flags(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(["--list"])
    text = capsys.readouterr().out
    assert not ended.value.code
    assert all(method.name in text and method.note in text and " ".join(method.flags) in text for method in METHODS.values())


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        ("--methods gradnorm nope", 2, "no method nope: take detection-only, "),
        ("--method x", 2, 'expected NAME="FLAGS"'),
        ("--method dwa=--adam", 2, "--method dwa: there is one of this name already"),
        ("--method a=--adam --method a=--quad", 2, "two methods have the same name"),
        ("--method ../a=--adam", 2, "it names a folder"),
        ("--jobs 0", 2, "--jobs must be at least 1, found 0"),
        ("--threads 0", 2, "--threads must be at least 1, found 0"),
        ("--seeds -1", 2, "--seeds must not be negative, found -1"),
        ("--folds 1", 2, "--folds must be from 2 to 1000, found 1"),
        ("--folds 2 --seeds 0", 2, "--folds takes the place of --seeds: give one of them"),
        ("--group-pattern x", 2, "--group-pattern is for folds: add --folds K"),
        ("--folds 2 --group patient", 2, "--group names a column, and there is no table: add --classes-csv FILE, or take"),
        ("--folds 2 --group-pattern x --classes-csv x.csv", 2, "--classes-csv is read for --group COLUMN: add that"),
        ("--resume x --folds 2 --epochs 2", 2, "--resume goes on as compare.yaml says: leave out --folds --epochs"),
        ("--resume x --seeds 1 --epochs 2", 2, "--resume goes on as compare.yaml says: leave out --seeds --epochs"),
        ("--seed 3", 1, "training flags: --seed cannot be set here: every method is trained with the seeds of --seeds"),
        ("--evolve 3", 1, "--evolve cannot be set here"),
        ("--balancer=fixed", 1, "--balancer cannot be set here: it is what the methods differ in"),
        ("--initial-weights 1 1", 1, "--initial-weights cannot be set here"),
        ("--init 1 1", 2, "unrecognized arguments: --init 1 1; did you mean --initial-weights?"),
        ("--method a=--exist-ok", 1, "--method a: --exist-ok cannot be set here"),
        ("--method a=--seed=1", 1, "--method a: --seed cannot be set here"),
        ("--epochz 3", 2, "unrecognized arguments: --epochz 3; did you mean --epochs?"),
        ("--epochs 0", 1, "training flags: --epochs must be at least 1, found 0"),
        (
            "--methods gradnorm --method a=--fitness-share=2",
            1,
            "--method a: --fitness-share must be from 0 to 1, and sum to 1 at most, found 2",
        ),
        ("--methods gradnorm --data nope.yaml", 1, "--data nope.yaml: File not found: nope.yaml"),
        ("--methods gradnorm --method a=--hyp=nope.yaml", 1, "--hyp nope.yaml: File not found: nope.yaml"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_starts(flags, status, message, tmp_path, capsys):
    found, line = error_of(capsys, *SCRATCH[: 4 * ("--resume" not in flags)], "--project", str(tmp_path), *flags.split())
    assert message in line and (found, list(tmp_path.iterdir())) == (status, [])


def test_bad_labels_are_told_before_anything_starts(tmp_path, capsys):
    data = write_joint_dataset(tmp_path / "data", images=4, size=32)
    label = next((tmp_path / "data" / "labels" / "train").glob("*.txt"))
    label.write_text("0 0.5 0.5 0.1 7\n")
    line = [*SCRATCH, "--methods", "detection-only", "gradnorm", "--data", str(data), "--project", str(tmp_path / "runs")]
    with pytest.raises(SystemExit):
        main(line, write=lambda root: pytest.fail("it started"))
    assert f"{label}:1" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_a_class_that_is_missing_is_told_before_anything_starts_whatever_the_order_of_the_methods(tmp_path, capsys):
    data = write_joint_dataset(tmp_path / "data", images=4, size=32, unlabelled=4)
    line = [*SCRATCH, "--methods", "detection-only", "gradnorm", "--data", str(data), "--project", str(tmp_path / "runs")]
    status, message = error_of(capsys, *line)
    assert status == 1 and "no image of `train` has a class" in message and not (tmp_path / "runs").exists()


def test_weights_are_settled_once_for_all_runs(tmp_path, monkeypatch):
    found = make_plan(parse_options(["--methods", "gradnorm", "--cfg", "yolov5n.yaml"]))
    assert found.flags == ("--cfg", "yolov5n.yaml", "--weights", "")
    found = make_plan(parse_options(["--methods", "gradnorm", "--weights", "mine.pt"]))
    assert found.flags == ("--weights", "mine.pt")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolov5s.pt").write_bytes(b"")  # as if it had been fetched
    assert make_plan(parse_options(["--methods", "gradnorm"])).flags == ("--weights", "yolov5s.pt")


def test_what_an_own_method_trains_is_told_by_its_weights():
    flags = ["--method", "a=--balancer fixed --initial-weights 0 2", "--method", "b=--balancer fixed --initial-weights 1 0"]
    found = make_plan(parse_options(["--methods", "gradnorm", *flags, *SCRATCH])).methods
    assert [(m.detects, m.classifies) for m in found] == [(True, True), (False, True), (True, False)]


def test_methods_and_seeds_can_be_added_but_flags_not_changed(tmp_path):
    first = make_plan(parse_options(["--methods", "gradnorm", "--seeds", "1", "--cfg", "yolov5n.yaml"]))
    write_plan(tmp_path, first)
    line = ["--methods", "fixed-1-1", "gradnorm", "--seeds", "0", "1", "--exist-ok", "--cfg", "yolov5n.yaml"]
    found = extend_plan(tmp_path, parse_options(line))
    assert [method.name for method in found.methods] == ["gradnorm", "fixed-1-1"] and found.seeds == (1, 0)
    assert (found.flags, found.started) == (first.flags, first.started)
    for more in (["--epochs", "9"], ["--weights", "mine.pt"]):
        with pytest.raises(CompareError, match="a comparison with other training flags: repeat them"):
            extend_plan(tmp_path, parse_options([*line, *more]))


def test_a_folder_that_is_no_comparison_is_left_alone(tmp_path, capsys):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "thesis.txt").touch()
    status, line = error_of(capsys, *SCRATCH, "--project", str(tmp_path), "--exist-ok")
    assert status == 1 and "exp is there and is no comparison: take another --name" in line
    status, line = error_of(capsys, "--project", str(tmp_path), "--resume")
    assert status == 1 and "--resume: there is no comparison in" in line


def test_seeds_are_the_outer_loop_and_finished_runs_are_known(tmp_path):
    for name, seed, finished in (("dwa", 0, "now"), ("gradnorm", 0, None)):
        folder = run_folder(tmp_path, name, seed)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"finished": finished, "seconds": 90.5}))
        (folder / "joint_metrics.json").touch()
    runs = runs_of(tmp_path, plan("gradnorm", "dwa", seeds=(0, 5)))
    order = [(run.method.name, run.seed, run.state) for run in runs]
    assert order == [("gradnorm", 0, WAITING), ("dwa", 0, FINISHED), ("gradnorm", 5, WAITING), ("dwa", 5, WAITING)]
    assert runs[1].seconds == 90.5
    (run_folder(tmp_path, "dwa", 0) / "joint_metrics.json").unlink()
    assert not is_finished(run_folder(tmp_path, "dwa", 0))


def test_a_run_is_a_training_with_its_own_seed_and_folder(tmp_path):
    (run,) = runs_of(tmp_path, plan("fixed-1-0.01", seeds=(7,)))
    line = runner.command(run, ("--epochs", "3"))
    assert line[3:] == [
        *"train --epochs 3 --balancer fixed --initial-weights 1 0.01 --project".split(),
        str(tmp_path / "fixed-1-0.01"),
        *"--name seed7 --exist-ok --seed 7".split(),
    ]


def test_a_run_takes_no_module_from_the_folder_that_the_plan_names(tmp_path):
    """The working folder of a resumed comparison is what compare.yaml says; `python -m` would import from there first."""
    for name in ("argparse", "yaml", "torch", "gradnorm_plugin"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (run,) = runs_of(tmp_path, plan("gradnorm"))
    python = runner.command(run, ())[:3]
    done = subprocess.run([*python, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout and not (tmp_path / "ran").exists()


CODE = "path: {0}/gone\ntrain: a\nval: b\nnames: [a]\nclassification_names: [b, c]\ndownload: open({1!r}, 'w')\n"


def strangers_plan(folder: Path, *flags: str, own: tuple[str, ...] | None = None) -> Path:
    """A comparison's folder whose data yaml has code under `download`."""
    (folder / "data.yaml").write_text(CODE.format(folder, str(folder / "ran")))
    line = ["--data", str(folder / "data.yaml"), "--weights", "", "--cfg", "yolov5n.yaml", "--epochs", "1", *flags]
    methods = {} if own is None else {"own": {"flags": list(own), "detects": True, "classifies": True}}
    contents = {"methods": list(methods) or ["gradnorm"], "seeds": [0], "flags": line, "own_methods": methods}
    (folder / "compare.yaml").write_text(yaml.safe_dump({**contents, "directory": str(folder), "started": "x"}))
    return folder


@pytest.mark.parametrize("own", [None, ("--allow-download",)])
def test_a_plan_permits_no_code_only_the_command_line_does(own, tmp_path, capsys, monkeypatch):
    folder = strangers_plan(tmp_path, "--allow-download", own=own)
    monkeypatch.chdir(tmp_path)
    status, line = error_of(capsys, "--resume", str(folder))
    assert status == 1 and "--allow-download" in line and not (tmp_path / "ran").exists()
    error_of(capsys, "--resume", str(folder), "--allow-download")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("flags", "own", "message"),
    [
        (("--allow-down",), None, "unrecognized arguments: --allow-down; did you mean --allow-download?"),
        ((), ("--allow-d",), "unrecognized arguments: --allow-d; did you mean --allow-download?"),
        (("--project", "/etc"), None, "--project cannot be set here"),
        ((), ("--resume", "x/weights/last.pt"), "--resume cannot be set here"),
        (("--evolve", "3", "--bucket", "b"), None, "--evolve cannot be set here"),
        (("--weights", "https://example.org/x.pt"), None, "--weights https://example.org/x.pt is an address"),
        ((), ("--data", "http:/example.org/x.yaml"), "--data http:/example.org/x.yaml is an address"),
        (("--hyp", "ftp://example.org/x.yaml"), None, "--hyp ftp://example.org/x.yaml is an address"),
    ],
)
def test_the_flags_of_a_plan_are_held_to_what_a_new_one_may_have(flags, own, message, tmp_path, capsys):
    status, line = error_of(capsys, "--resume", str(strangers_plan(tmp_path, *flags, own=own)))
    assert status == 1 and message in line and "compare.yaml" in line


def test_a_method_s_folder_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "mine" / "seed0" / "weights").mkdir(parents=True)
    (tmp_path / "gradnorm").symlink_to(tmp_path / "mine")
    with pytest.raises(CompareError, match=r"gradnorm is a link"):
        runner.clear(tmp_path / "gradnorm" / "seed0")
    assert (tmp_path / "mine" / "seed0" / "weights").is_dir()


def test_only_what_a_training_run_left_is_removed(tmp_path):
    runner.clear(tmp_path / "not there")
    broken, foreign, linked = (tmp_path / name for name in ("broken", "foreign", "linked"))
    for folder in (broken / "weights", foreign):
        folder.mkdir(parents=True)
    (foreign / "thesis.txt").touch()
    linked.symlink_to(broken)
    for folder in (foreign, linked):
        with pytest.raises(CompareError, match=f"{folder} is there and is not a training run's: move it away"):
            runner.clear(folder)
    runner.clear(broken)
    assert not broken.exists() and (foreign / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("text", "status", "expected"),
    [
        ("a\nERROR: no\n  images:\n    x.png\n", 1, "no"),
        ("\x1b[31m\x1b[1mERROR:\x1b[0m no\nlater\n", 1, "no"),
        ("0%|\r50%|\rKeyError: 'x'\n\n", 1, "KeyError: 'x'"),
        ("epoch 1\n", -9, "ended by signal SIGKILL (short of memory?)"),
        ("done\n", 0, "it ended without its results; its last line: done"),
        ("", 1, "it printed nothing"),
        ("ERROR: old\n" + "x" * 70_000 + "\nlast", 1, "last"),
    ],
)
def test_the_reason_of_a_failure_is_one_line_of_its_log(text, status, expected, tmp_path):
    log = tmp_path / "seed0.log"
    log.write_text(text)
    assert failure(log, status) == expected


def test_figures_of_a_run_that_goes_on(tmp_path):
    assert current_progress(tmp_path) == Progress()
    write_csv(tmp_path / "joint_results.csv", epochs(3, balanced_accuracy=[0.1, 0.2, float("nan")]))
    assert current_progress(tmp_path) == Progress(3, {"detection": 0.256})
    (tmp_path / "joint_results.csv").write_text("epoch,mAP50-95\n")
    assert current_progress(tmp_path) == Progress()


def test_the_table_has_the_figures_of_every_image_output(tmp_path):
    contents = several()
    tasks = image_tasks(contents["run"])
    chosen = (methods_of(tasks)["view-only"], methods_of(tasks)["gradnorm"])
    runs = runs_of(tmp_path, replace(plan(), methods=chosen, tasks=tasks), total=3)
    for run in runs:
        write_run(run.folder, **contents)
        run.state, run.seconds = FINISHED, 60.0
    console = Console(file=StringIO(), width=120, color_system=None)
    console.print(LiveTable(runs, tmp_path, jobs=1))
    text = " ".join(console.file.getvalue().replace("│", "|").split())
    assert "| view only | view 0.982 1 min |" in text
    assert "| GradNorm | box 0.601 view 0.982 finding 0.627 grade -12.375 1 min |" in text
    assert "box: mAP50-95, view: view balanced accuracy, finding: finding macro F1, grade: grade kappa 2; of the last" in text
    assert current_progress(runs[0].folder, tasks).figures["grade"] == 0.7


def test_the_table_has_a_cell_for_every_run(tmp_path):
    runs = runs_of(tmp_path, plan("detection-only", "gradnorm", seeds=(0, 1)), total=8)
    for run in runs[:2]:
        run.folder.mkdir(parents=True)
        write_csv(run.folder / "joint_results.csv", epochs(3))
    (runs[1].folder / "joint_metrics.json").write_text(json.dumps(metrics()))
    runs[0].state, runs[0].started = RUNNING, time.monotonic()
    runs[1].state, runs[1].seconds = FINISHED, 600.0
    runs[2].state, runs[2].error = FAILED, "it diverged"
    console = Console(file=StringIO(), width=120, color_system=None)
    console.print(LiveTable(runs, tmp_path, jobs=1))
    lines = [" ".join(line.replace("│", "|").split()) for line in console.file.getvalue().splitlines()]
    final = metrics()
    box, cls = final["detection"]["mAP50-95"], final["classification"]["balanced_accuracy"]
    assert "| Detection only | 3/8 box 0.256 | failed |" in lines
    assert f"| GradNorm | box {box:.3f} cls {cls:.3f} 10 min | waiting |" in lines
    assert any(line.startswith("1 of 4 finished, 1 failed, 0 s since the start, about 10 min left") for line in lines)
    assert any(line.startswith("detection-only seed 1 failed: it diverged (all of it:") for line in lines)


def test_the_time_left_is_told_by_finished_runs_and_by_the_pace_of_running_ones(tmp_path):
    runs = runs_of(tmp_path, plan("detection-only", "gradnorm", seeds=(0, 1)))
    assert seconds_left(runs, 1) is None
    runs[0].state, runs[0].started = RUNNING, time.monotonic() - 30
    assert seconds_left(runs, 1) is None
    runs[0].folder.mkdir(parents=True)
    write_csv(runs[0].folder / "joint_results.csv", epochs(1))  # 1 of 4 in 30 s
    assert seconds_left(runs, 1) == pytest.approx(90 + 3 * 120, abs=2)
    assert seconds_left(runs, 3) == pytest.approx((90 + 3 * 120) / 3, abs=2)
    runs[1].state, runs[1].seconds = FINISHED, 60.0
    assert seconds_left(runs, 1) == pytest.approx(90 + 2 * 60, abs=2)


def test_a_failing_run_does_not_end_the_others(workers, tmp_path):
    workers["gradnorm"] = 0.0, "fail"
    runs = runs_of(tmp_path, plan("gradnorm", "dwa", "cagrad"))
    foreign = run_folder(tmp_path, "dwa", 0)
    foreign.mkdir(parents=True)
    (foreign / "thesis.txt").touch()
    changes = []
    runner.train_all(runs, (), 1, 1, lambda run: changes.append((run.method.name, run.state)))
    assert changes == [("gradnorm", RUNNING), ("gradnorm", FAILED), ("dwa", FAILED), ("cagrad", RUNNING), ("cagrad", FINISHED)]
    assert [run.error for run in runs] == ["it diverged", f"{foreign} is there and is not a training run's: move it away", ""]
    assert log_file(tmp_path, "gradnorm", 0).read_text() == "training\nERROR: it diverged\n"


def test_as_many_run_at_the_same_time_as_are_asked_for(workers, tmp_path):
    workers |= dict.fromkeys(("gradnorm", "dwa", "cagrad"), (0.5, "well"))
    runs, most = runs_of(tmp_path, plan("gradnorm", "dwa", "cagrad")), []
    runner.train_all(runs, (), 2, 1, lambda run: most.append(sum(other.state == RUNNING for other in runs)))
    assert max(most) == 2 and all(run.state == FINISHED for run in runs)


def test_when_stopped_no_process_is_left(workers, tmp_path):
    workers["gradnorm"] = 60.0, "well"
    runs = runs_of(tmp_path, plan("gradnorm", "dwa"))
    with pytest.raises(KeyboardInterrupt):
        runner.train_all(runs, (), 1, 1, lambda run: None, stopped=lambda: runs[0].state == RUNNING)
    assert runs[0].process.returncode == -signal.SIGTERM and [run.state for run in runs] == [WAITING, WAITING]


def test_a_folder_is_worked_on_by_one_comparison_also_after_a_kill(tmp_path):
    with exclusive(tmp_path) as inherited:
        with pytest.raises(CompareError, match="is being worked on, by another `compare` or by a run"), exclusive(tmp_path):
            pass
        left_behind = subprocess.Popen(["sleep", "60"], pass_fds=inherited)
    try:
        with pytest.raises(CompareError, match="is being worked on"), exclusive(tmp_path):
            pass
    finally:
        left_behind.kill()
        left_behind.wait()
    with exclusive(tmp_path):
        pass


def driver(*flags: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, DRIVER, *flags],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background of a shell ignore it
    )


def compare(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[str, str]:
    """What a comparison in which a run fails prints: its lines, and its errors."""
    with pytest.raises(SystemExit, match="1"):
        main(flags, write=count)
    return capsys.readouterr()


def times(folder: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*")}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of a training of one epoch of 2 batches."""
    data = write_joint_dataset(tmp_path_factory.mktemp("joint"), images=8, size=64)
    size = "--imgsz 64 --epochs 1 --batch-size 4 --workers 0 --noplots --hyp hyp.scratch-low.yaml --threads 1".split()
    return ["--data", str(data), *SCRATCH, *size]


def test_real_runs_are_trained_not_repeated_and_trained_anew_where_broken(small, tmp_path, capsys):
    wild = tmp_path / "wild.yaml"
    scratch = yaml.safe_load((find_checkout() / "data/hyps/hyp.scratch-low.yaml").read_text())
    wild.write_text(yaml.safe_dump({**scratch, "lr0": 1e30, "warmup_epochs": 0}))
    methods = ["--methods", "wild", "detection-only", "gradnorm", "--method", f"wild=--hyp {wild}"]
    out, err = compare(capsys, *small, *methods, "--seeds", "4", "--project", str(tmp_path))
    root = tmp_path / "exp"
    assert "ERROR: 1 of 3 runs failed" in err and f"--resume {root}" in err, out + err
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [
        "wild seed 4 starts", "wild seed 4 failed", "detection-only seed 4 starts", "detection-only seed 4 is finished",
        "gradnorm seed 4 starts", "gradnorm seed 4 is finished",
    ]  # fmt: skip
    assert "finite" in lines[1] and "balanced accuracy" not in lines[3] and lines[5].endswith("(2 of 3 finished, 1 failed)")
    assert (root / "written").read_text() == 3 * "once\n"
    gradnorm, kept = run_folder(root, "gradnorm", 4), run_folder(root, "detection-only", 4)
    options = yaml.safe_load((gradnorm / "opt.yaml").read_text())
    assert (options["seed"], options["balancer"], options["epochs"]) == (4, "gradnorm", 1)

    undisturbed, before = (gradnorm / "joint_metrics.json").read_text(), times(kept)
    facts = json.loads((gradnorm / "run.json").read_text())
    (gradnorm / "run.json").write_text(json.dumps({**facts, "finished": None}))  # as if killed at the last moment
    (gradnorm / "leftover").touch()
    out, err = compare(capsys, "--resume", "--project", str(tmp_path))
    assert "ERROR: 1 of 3" in err and "detection-only" not in out and times(kept) == before, out + err
    assert is_finished(gradnorm) and not (gradnorm / "leftover").exists()
    assert (gradnorm / "joint_metrics.json").read_text() == undisturbed
    assert json.loads((gradnorm / "run.json").read_text())["device"] == "CPU, 1 thread"  # as it was started, cores or no cores


def test_each_fold_is_measured_once_and_parts_no_group(small, tmp_path, capsys):
    """Images are named train0 ... train7, val0 ... val3; a group is a number, so two of them have an image of either split."""
    flags = [*small, "--methods", "gradnorm", "--project", str(tmp_path), "--folds", "2"]
    root = tmp_path / "exp"
    main([*flags, "--group-pattern", "([0-9]+)"], write=count)
    lines = capsys.readouterr().out.splitlines()
    order = [line for line in lines if line.endswith(" starts")]
    assert order == ["gradnorm fold 0 starts", "gradnorm fold 1 starts"], lines
    read = {
        (fold, split): (root / "folds" / f"fold{fold}-{split}.txt").read_text().split()
        for fold in (0, 1)
        for split in ("train", "val")
    }
    assert sorted(read[0, "val"] + read[1, "val"]) == sorted(read[0, "val"] + read[0, "train"]) and len(set(read[0, "train"])) > 4
    numbers = [{re.search("[0-9]+", Path(file).stem).group() for file in read[0, split]} for split in ("train", "val")]
    assert not numbers[0] & numbers[1] and len(read[0, "val"] + read[1, "val"]) == 12
    for fold in (0, 1):
        folder = run_folder(root, "gradnorm", fold, "fold")
        assert json.loads((folder / "joint_metrics.json").read_text())["images"] == len(read[fold, "val"])
    assert read_plan(root).seeds == (0, 1) and "folds: 2" in (root / "compare.yaml").read_text()

    before = times(root / "folds")
    (run_folder(root, "gradnorm", 1, "fold") / "run.json").unlink()
    main(["--resume", str(root)], write=count)
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "gradnorm fold 1 starts" and "gradnorm fold 1 is finished" in out and "2 of 2" in out, out
    assert times(root / "folds").items() >= before.items()
    for more, message in (
        (["--exist-ok", "--group-pattern", "x"], "leave it out with --exist-ok"),
        (["--method", f"own=--data {tmp_path / 'other.yaml'}"], "own: --data cannot be set for a method"),
        (["--group-pattern", "nothing"], "--group-pattern nothing gives no image a group"),
        (["--group-pattern", "^(train|val)/"], "--folds 3: the data have 2 groups in all: take 2 folds at most"),
    ):
        status, line = error_of(capsys, *flags, *more, *(["--folds", "3"] if "3" in message else []))
        assert message in line and status, line
    status, line = error_of(capsys, *flags[:-1], "3", "--exist-ok")
    assert "is a comparison over --folds 2: repeat that" in line


def test_a_separate_classifier_is_upstreams_own_measured_as_all_others(small, tmp_path):
    out, err = driver(*small, "--methods", "separate-classifier", "--seeds", "4", "--project", str(tmp_path)).communicate(
        timeout=300
    )
    assert "separate-classifier seed 4 is finished: balanced accuracy" in out, out + err
    folder = run_folder(tmp_path / "exp", "separate-classifier", 4)
    options = yaml.safe_load((folder / "opt.yaml").read_text())
    assert (options["seed"], options["epochs"], options["imgsz"], options["batch_size"], options["optimizer"]) == (
        4,
        1,
        64,
        4,
        "Adam",
    )
    found = json.loads((folder / "joint_metrics.json").read_text())
    rows = (folder / "results.csv").read_text().split("\n")
    columns = [name.strip() for name in rows[0].split(",")]
    accuracy = float(rows[1].split(",")[columns.index("metrics/accuracy_top1")])
    part = found["classification"]
    assert part["accuracy"] == pytest.approx(accuracy, abs=1e-4) and (found["images"], part["images"]) == (4, 3)
    assert [row["name"] for row in part["classes"]] == ["dark", "light", "grey"] and [r["support"] for r in part["classes"]] == [
        1
    ] * 3
    model = json.loads((folder / "run.json").read_text())["model"]
    assert 1e6 < model["total_parameters"] < 1.5e6 and model["total_gflops"] > 2 and not (folder / "start.pt").exists()
    shades = [cv2.imread(str(next((folder / "images" / "train" / str(index)).iterdir()))).mean() for index in range(3)]
    assert shades[0] < shades[2] < shades[1]  # dark, light, grey


def test_a_class_without_an_image_is_told_before_a_separate_classifier_starts(tmp_path):
    data = write_joint_dataset(tmp_path / "data", images=4, size=32)  # of 2 validation images the second has no class
    made = make_plan(parse_options(["--data", str(data), *SCRATCH, "--methods", "separate-classifier"]))
    with pytest.raises(
        CompareError, match="separate-classifier: no image of `val` is of the class light, .* leave the method out"
    ):
        check_plan(made)


def test_ctrl_c_stops_the_run_and_leaves_the_comparison_to_go_on_with(small, tmp_path):
    stopped = driver(*small, "--methods", "fixed-1-0.01", "gradnorm", "--seeds", "0", "--project", str(tmp_path))
    log = log_file(tmp_path / "exp", "fixed-1-0.01", 0)
    deadline = time.monotonic() + 120
    while not (log.is_file() and log.stat().st_size) and time.monotonic() < deadline and stopped.poll() is None:
        time.sleep(0.1)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    root = tmp_path / "exp"
    assert stopped.returncode == 130, out + err
    assert out.splitlines() == ["fixed-1-0.01 seed 0 starts", f"Stopped; go on with: yolov5-gradnorm compare --resume {root}"]
    with exclusive(root):  # no process of the run is left: it would hold the lock
        pass
    found = read_plan(root)
    assert {name: run.options.epochs for name, run in check_plan(found).items()} == {"fixed-1-0.01": 1, "gradnorm": 1}
    assert [run.state for run in runs_of(root, found)] == [WAITING, WAITING]
