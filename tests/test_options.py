"""The launcher's flags: upstream's with their meaning and defaults, ours, and what becomes of `--weights`."""

from __future__ import annotations

import argparse
import math
import socket
import sys
from pathlib import Path

import pytest

from gradnorm_plugin import FixedWeights, GradNorm
from gradnorm_plugin.training.flags import build_parser, given_flags, upstream_parser
from gradnorm_plugin.training.options import (
    choices,
    make_balancer,
    parse_options,
    resolve_weights,
    settle,
)
from gradnorm_plugin.upstream.checkout import REPOSITORY
from gradnorm_plugin.upstream.gateway import upstream

OUR_DEFAULTS = {"weights", "data", "hyp", "imgsz", "epochs", "batch_size", "project"}
REPORT = {"alpha": 1.5, "weight_sum": 4.0, "weight_ranges": [(1.0, 4.0), (0.01, 0.4)], "interval": 10, "warmup": 10, "lr": 0.1}
PAPER = {
    "alpha": 1.5,
    "weight_sum": 2.0,
    "weight_ranges": [(0.0, math.inf)] * 2,
    "interval": 1,
    "warmup": 1,
    "lr": 0.025,
}


def upstream_options(monkeypatch: pytest.MonkeyPatch, *argv: str) -> dict[str, object]:
    """What upstream's own `train.py` makes of a command line."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *argv])
        return vars(upstream("train").parse_opt())


def settings(*argv: str) -> dict[str, object]:
    """The settings of the GradNorm that a command line asks for."""
    balancer = make_balancer(parse_options(argv))
    assert type(balancer) is GradNorm
    return {name: getattr(balancer, name) for name in REPORT} | {"weights": balancer.weights.tolist()}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no network."""

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "create_connection", fail)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_flags_upstreams_defaults_but_for_ours(monkeypatch):
    expected, found = upstream_options(monkeypatch), vars(parse_options([]))
    assert len(expected) > 35
    missing = sorted(expected.keys() - found.keys())
    assert not missing, f"flags of upstream's train.py that the launcher lost: {missing}"
    assert {name for name in expected if found[name] != expected[name]} == OUR_DEFAULTS


def test_our_defaults():
    found = parse_options([])
    assert (found.imgsz, found.epochs, found.batch_size, found.weights) == (320, 5, 8, None)
    for name, path in (("data", "data/joint.yaml"), ("hyp", "data/hyp.joint.yaml"), ("project", "runs/train")):
        assert Path(getattr(found, name)).resolve() == REPOSITORY / path
    assert (found.balancer, found.gradnorm_preset, found.weight_scope) == ("gradnorm", "auto", "loss")
    assert (found.class_weights, found.fitness_share, found.log_interval) == ("balanced", 0.25, 10)


def test_long_runs_have_hyperparameters_of_their_own():
    """Shown as they are 100 times, the cells were learned by heart: mAP50-95 0.567 where mosaics gave 0.615."""
    for line, name in (
        ("--epochs 49", "data/hyp.joint.yaml"),
        ("--epochs 50", "data/hyp.joint-long.yaml"),
        ("--epochs 50 --hyp data/hyp.joint.yaml", "data/hyp.joint.yaml"),
    ):
        found = parse_options(line.split())
        assert Path(found.hyp).resolve() == REPOSITORY / name
        reason = choices(found, given_flags(line.split())).get("hyp")
        assert (reason is None) == ("--hyp" in line) and (
            reason is None or reason.startswith(f"{found.hyp}: {line.split()[1]} epochs")
        )


def test_files_of_the_defaults_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = parse_options([])
    for name in ("data", "hyp"):
        assert Path(getattr(found, name)).resolve().parent == REPOSITORY / "data"


def test_every_flag_of_upstream_is_read_as_upstream_reads_it(monkeypatch):
    """Each flag in turn with a value that is not its default, long and short names alike."""
    parser, tried = upstream_parser(), 0
    for action in parser._actions:
        for flag in action.option_strings:
            if action.dest in {"help", "quad"}:  # --quad is refused, which test_training shows
                continue
            value = {None: "7", int: "7", float: "0.5", str: "some"}[action.type]
            value = "cpu" if action.dest == "device" else value  # a GPU that is not there is refused
            argv = [flag] if action.nargs == 0 else [flag, action.choices[-1] if action.choices else value]
            expected, found = upstream_options(monkeypatch, *argv)[action.dest], getattr(parse_options(argv), action.dest)
            assert expected != action.default, flag
            assert found == expected and type(found) is type(expected), flag
            tried += 1
    assert tried > 35


@pytest.mark.parametrize(
    "line",
    [
        "--batch 4 --img 64",
        "--resume",
        "--cache",
        "--evolve",
        "--freeze 0 1 2",
        "--cache disk",
        "--img-size 128",
        "--weights= --cfg yolov5n.yaml",
    ],
)
def test_short_and_bare_forms_of_upstreams_flags(monkeypatch, line):
    expected, found = upstream_options(monkeypatch, *line.split()), vars(parse_options(line.split()))
    assert {n for n in expected if found[n] != expected[n]} <= OUR_DEFAULTS
    plain = upstream_options(monkeypatch)
    changed = {name for name in expected if expected[name] != plain[name]}
    assert changed and all(found[name] == expected[name] for name in changed)


@pytest.mark.parametrize(
    ("line", "meant"), [("--epoch 3", "--epochs"), ("--weight x.pt", "--weights"), ("--gradnorm-a=1", "--gradnorm-alpha")]
)
def test_a_shortened_flag_is_told_the_whole_one(line, meant, capsys):
    with pytest.raises(SystemExit):
        parse_options(line.split())
    assert f"unrecognized arguments: {line}; did you mean {meant}?" in capsys.readouterr().err


def test_ours_are_told_apart_from_upstreams():
    upstreams = {action.dest for action in upstream_parser()._actions}
    ours = {action.dest for action in build_parser()._actions} - upstreams
    assert ours == {
        "balancer", "gradnorm_preset", "gradnorm_alpha", "initial_weights", "weight_sum", "weight_ranges", "gradnorm_interval",
        "gradnorm_warmup", "gradnorm_lr", "gradnorm_start", "uncertainty_lr", "dwa_temperature", "uw_so_temperature", "cagrad_c",
        "weight_scope", "class_weights", "fitness_share", "allow_download", "log_interval", "backbone", "head", "shared_layer",
        "channels_last", "precision",
    }  # fmt: skip


@pytest.mark.parametrize(("given", "meant"), [("auto", ""), ("AUTO", ""), ("", ""), ("cpu", "cpu")])
def test_device(given, meant):
    assert parse_options(["--device", given]).device == meant


def test_the_command_line_is_read_where_none_is_given(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["launcher", "--batch-size", "8", "--device", "auto", "--epochs", "50"])
    found = parse_options()
    assert (found.batch_size, found.device, found.epochs) == (8, "", 50)


def test_given_flags_are_those_of_the_line_whatever_their_value():
    line = "--epochs 5 --gradnorm-alpha 1 --resume last.pt --head pooled".split()
    assert given_flags(line) == {"epochs", "gradnorm_alpha", "resume", "head"}
    assert given_flags([]) == set()


def test_presets():
    assert settings() == REPORT | {"weights": [1.0, 0.01]}
    assert settings("--gradnorm-preset", "report") == settings()
    assert settings("--gradnorm-preset", "paper") == PAPER | {"weights": [1.0, 1.0]}


def test_the_preset_of_ratios():
    found = settings("--gradnorm-preset", "ratio")
    ratio = {"weight_sum": None, "weight_ranges": [(1.0, 1.0), (1e-4, 1.0)], "weights": [1.0, 0.01]}
    assert found == REPORT | ratio
    balancer = make_balancer(parse_options(["--gradnorm-preset", "ratio", "--initial-weights", "2", "1"]))
    assert (balancer.reference, balancer.start, balancer.weights.tolist()) == (0, "measured", [1.0, 0.5])
    mixed = make_balancer(parse_options("--gradnorm-start measured --weight-sum 1.1 --weight-ranges 0.7 1.1 0.001 0.4".split()))
    assert (mixed.reference, mixed.start, mixed.weight_sum) == (None, "measured", 1.1)


@pytest.mark.parametrize("preset", ["report", "paper"])
@pytest.mark.parametrize(
    ("flag", "name", "value"),
    [
        ("--gradnorm-alpha 0.12", "alpha", 0.12),
        ("--gradnorm-alpha 0", "alpha", 0.0),
        ("--initial-weights 2.5 0.05", "weights", [2.5, 0.05]),
        ("--weight-sum 1.9", "weight_sum", 1.9),
        ("--weight-ranges 0.5 3.9 0.02 0.6", "weight_ranges", [(0.5, 3.9), (0.02, 0.6)]),
        ("--gradnorm-interval 3", "interval", 3),
        ("--gradnorm-warmup 0", "warmup", 0),
        ("--gradnorm-lr 0.5", "lr", 0.5),
    ],
)
def test_a_flag_changes_its_own_setting_alone(preset, flag, name, value):
    chosen = ["--gradnorm-preset", preset]
    before, after = settings(*chosen), settings(*chosen, *flag.split())
    assert after.pop(name) == value != before.pop(name)
    assert after == before


@pytest.mark.parametrize(
    ("line", "weights"),
    [("", [1.0, 0.01]), ("--initial-weights 1 1", [1.0, 1.0]), ("--initial-weights 1 0", [1.0, 0.0]),
     ("--gradnorm-preset paper", [1.0, 1.0])],
)  # fmt: skip
def test_fixed_weights(line, weights):
    balancer = make_balancer(parse_options(["--balancer", "fixed", *line.split()]))
    assert type(balancer) is FixedWeights and balancer.weights.tolist() == weights


@pytest.mark.parametrize(
    ("line", "weights"),
    [("", [1.0, 1.0]), ("--initial-weights 1 0.1", [1.0, 0.1]), ("--balancer fixed", [1.0, 1.0])],
)
def test_two_backbones_mean_fixed_weights(line, weights):
    found = parse_options(["--backbone", "dual", *line.split()])
    assert found.balancer == "fixed" and make_balancer(found).weights.tolist() == weights


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--backbone dual --balancer gradnorm",
            "--backbone dual shares no layer, so there is nothing to balance: leave --balancer",
        ),
        ("--gradnorm-alpha -1", "alpha must be finite and not negative, found -1.0"),
        ("--gradnorm-lr nan", "lr must be finite and not negative, found nan"),
        ("--gradnorm-warmup -2", "warmup must be a whole number of at least 0, found -2"),
        ("--initial-weights 1 0", "initial_weights must be positive"),
        ("--balancer fixed --initial-weights 0 0", "weights must be finite, not negative and not all zero"),
        ("--weight-ranges 2 1 0 1", "weight_ranges[0] is (2.0, 1.0)"),
        ("--log-interval 0", "--log-interval must be at least 1, found 0"),
        ("--fitness-share nan", "--fitness-share must be from 0 to 1"),
        ("--balancer none", "--balancer"),
        ("--gradnorm-preset ratio --weight-sum 2", "--weight-sum: with --gradnorm-preset ratio detection's weight is always 1"),
        ("--gradnorm-preset ratio --weight-ranges 2 4 0 1", "weight_ranges[0] is (2.0, 4.0), expected a range that holds 1"),
        ("--gradnorm-preset ratio --gradnorm-warmup 0", "start is 'measured', which needs a warmup of at least 1 batch, found 0"),
        ("--gradnorm-start guessed", "--gradnorm-start"),
        ("--balancer log --initial-weights 1 1", "--initial-weights: log sets the weights itself"),
        (
            "--balancer bisector --gradnorm-start given",
            "--gradnorm-start belongs to --balancer gradnorm; with --balancer bisector",
        ),
        ("--uw-so-temperature 2", "--uw-so-temperature belongs to --balancer uw-so; with --balancer gradnorm it has no effect"),
        ("--balancer uw-so --uw-so-temperature 0", "temperature must be finite and positive, found 0.0"),
        ("--backbone dual --balancer bisector", "--backbone dual shares no layer"),
        ("--no-such-flag", "--no-such-flag"),
        ("--batch_size 4", "unrecognized arguments: --batch_size 4; did you mean --batch-size?"),
        ("--gradnrom-alpha=1 --epcohs 3", "did you mean --gradnorm-alpha, --epochs?"),
    ],
)
def test_a_wrong_value_is_one_line(line, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_options(line.split())
    assert stopped.value.code == 2
    usage, last = capsys.readouterr().err.strip().splitlines()
    assert usage == "usage: train_joint_gradnorm_fixed.py [flags]   (--help lists them)"
    assert last.startswith("train_joint_gradnorm_fixed.py: error:") and message in last


@pytest.mark.parametrize(
    ("line", "head", "preset"),
    [
        ("--weights= --cfg yolov5n.yaml", "pooled", "report"),
        ("--weights yolov5n.pt", "both", "ratio"),
        ("--weights yolov5n.pt --cfg yolov5n.yaml", "both", "ratio"),
        ("--weights yolov5n.pt --weight-sum 1.1", "both", "report"),
        ("--weights yolov5n.pt --head pooled --gradnorm-preset paper", "pooled", "paper"),
        ("--weights yolov5n.pt --backbone dual", "pooled", "ratio"),
    ],
)
def test_head_and_preset_follow_from_what_training_starts_from(offline, line, head, preset):
    found = parse_options(line.split())
    assert (found.head, found.gradnorm_preset) == (head, preset)
    named = {word.removeprefix("--").replace("-", "_") for word in line.split() if word.startswith("--")}
    assert set(choices(found, named)) == {"head", "gradnorm_preset", "epochs", "hyp"} - named - (
        {"gradnorm_preset"} if found.balancer == "fixed" else set()
    )


def test_bfloat16_takes_the_fast_memory_format_with_it(offline):
    line = ["--weights=", "--cfg", "yolov5n.yaml"]
    assert [(o.precision, o.channels_last) for o in (parse_options(line), parse_options([*line, "--precision", "bfloat16"]))] == [
        ("auto", False), ("bfloat16", True),
    ]  # fmt: skip


def test_head_and_preset_wait_for_the_weights_that_can_be_had(offline):
    scratch = parse_options([])
    (offline / "yolov5s.pt").write_bytes(b"weights")
    trained = parse_options([])
    for options, weights in ((scratch, ""), (trained, "yolov5s.pt")):
        assert (options.head, options.gradnorm_preset) == (None, "auto")
        options.weights = weights
        settle(options)
    assert (scratch.head, scratch.gradnorm_preset) == ("pooled", "report")
    assert (trained.head, trained.gradnorm_preset) == ("both", "ratio")


def test_without_pretrained_weights_training_is_from_scratch_and_one_line_says_so(offline):
    options = parse_options([])
    note = resolve_weights(options)
    assert (options.weights, options.cfg) == ("", "yolov5s.yaml")
    assert note == "yolov5s.pt cannot be found or downloaded: training yolov5s.yaml from scratch"
    assert list(offline.iterdir()) == []


def test_pretrained_weights_that_are_here_are_used(offline):
    (offline / "yolov5s.pt").write_bytes(b"weights")
    options = parse_options([])
    assert resolve_weights(options) == "starting from yolov5s.pt"
    assert (options.weights, options.cfg) == ("yolov5s.pt", "")


def test_a_download_that_breaks_off_is_training_from_scratch(offline, monkeypatch):
    class Connected:
        def close(self) -> None:
            pass

    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: Connected())

    def cut(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(upstream("utils.downloads"), "attempt_download", cut)
    options = parse_options([])
    assert "training yolov5s.yaml from scratch" in resolve_weights(options)
    assert options.weights == ""


def test_another_network_without_weights_is_trained_from_scratch(offline):
    (offline / "yolov5s.pt").write_bytes(b"weights of another network")
    options = parse_options(["--cfg", "yolov5n.yaml"])
    assert resolve_weights(options) == "--cfg yolov5n.yaml without --weights: training yolov5n.yaml from scratch"
    assert (options.weights, options.cfg) == ("", "yolov5n.yaml")


@pytest.mark.parametrize("line", ["--weights mine.pt", "--weights yolov5s.pt", "--weights= --cfg yolov5n.yaml"])
def test_weights_that_the_user_named_are_kept(offline, line):
    options = parse_options(line.split())
    named = argparse.Namespace(**vars(options))
    assert resolve_weights(options) is None
    assert options == named


def test_a_resumed_run_looks_for_no_weights(offline):
    options = parse_options(["--resume", "runs/train/exp/weights/last.pt"])
    assert resolve_weights(options) is None and options.weights == ""
