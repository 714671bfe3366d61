"""The face of the package: its names and their signatures, its command, and imports that point one way."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import gradnorm_plugin
from gradnorm_plugin import FixedWeights, GradNorm, GradNormLoss, JointDetectionModel, JointTargets

PACKAGE = Path(gradnorm_plugin.__file__).parent
UPSTREAMS = {"models", "utils", "train", "val", "detect", "export", "hubconf", "benchmarks", "classify", "segment"}

# room -> the rooms it may import from, besides itself; labels, balancing and upstream stand for themselves
ALLOWED = {
    "pictures": set(),
    "labels": {"files"},
    "outputs": {"labels", "names"},
    "balancing": {"presets"},
    "presets": set(),
    "upstream": {"files"},
    "files": set(),
    "names": set(),
    "reading": {"files"},
    "run_folder": set(),
    "terminal": {"names"},
    "data": {"labels", "outputs", "pictures", "upstream", "files", "reading"},
    "model": {"outputs", "upstream", "reading", "files"},
    "loss": {"outputs", "model", "balancing", "upstream"},
    "evaluation": {
        "labels",
        "outputs",
        "data",
        "model",
        "predict",
        "upstream",
        "terminal",
        "files",
        "names",
        "run_folder",
    },
    "report": {"terminal", "files", "reading", "names", "run_folder"},  # reads the files of a run, whoever wrote them
    "training": {
        "names",
        "labels",
        "outputs",
        "balancing",
        "presets",
        "upstream",
        "terminal",
        "data",
        "model",
        "loss",
        "evaluation",
        "report",
        "files",
        "reading",
        "run_folder",
    },
    "compare": {
        "convert",
        "labels",
        "balancing",
        "upstream",
        "terminal",
        "data",
        "evaluation",
        "outputs",
        "report",
        "training",
        "strip",
        "files",
        "reading",
        "names",
        "run_folder",
    },
    "predict": {"labels", "outputs", "pictures", "data", "reading", "model", "upstream", "terminal", "files", "names"},
    "strip": {"model", "upstream", "terminal", "files"},
    "export": {"model", "upstream", "terminal", "files"},
    "convert": {"files", "labels", "names", "outputs", "pictures", "terminal"},
    "cli": {"upstream", "terminal", "files"},  # the commands are imported by name, when they are called
    "__main__": {"cli"},
    "__init__": {"balancing", "data", "loss", "model", "predict"},
}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def files() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert len(found) > 40
    return found


def module_name(file: Path) -> str:
    parts = (PACKAGE.name, *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """`gradnorm_plugin.data.checking` is in `data`; the package itself is `__init__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(file: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, anywhere in it, with the line."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            yield node.module, node.lineno


def parameters(function: object) -> dict[str, object]:
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


required = inspect.Parameter.empty


def test_every_public_name_can_be_imported():
    assert set(gradnorm_plugin.__all__) == {
        "FixedWeights", "GradNorm", "GradNormLoss", "JointDetectionModel", "JointTargets", "Prediction", "Predictor",
    }  # fmt: skip
    for name in gradnorm_plugin.__all__:
        assert getattr(gradnorm_plugin, name).__name__ == name


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (JointDetectionModel, {"cfg": ..., "ch": 3, "nc": None, "anchors": None, "classification_names": None}),
        (GradNormLoss, {"model": required, "balancer": None}),
        (JointTargets, {"boxes": required, "classes": required}),
        (
            GradNorm,
            {"num_tasks": 2, "alpha": 1.5, "initial_weights": ..., "weight_sum": ..., "weight_ranges": ..., "interval": ...,
             "warmup": ..., "lr": ...},
        ),
        (FixedWeights, {"weights": required}),
    ],
)  # fmt: skip
def test_signatures_begin_as_promised(function, expected):
    found = parameters(function)
    assert list(found)[: len(expected)] == list(expected)
    for name, default in found.items():
        if expected.get(name, ...) is ...:
            assert default is not required or name == "cfg", f"{name} has no default"
        else:
            assert default == expected[name], name


@pytest.mark.parametrize("balancer", [GradNorm(), FixedWeights((1.0, 0.01))], ids=lambda b: type(b).__name__)
def test_balancers_have_what_is_promised(balancer):
    assert isinstance(balancer.weights, torch.Tensor) and balancer.weights.shape == (2,)
    assert list(parameters(balancer.update)) == ["losses", "gradient_norms"]
    returned = balancer.update(losses=[1.0, 2.0], gradient_norms=torch.tensor([3.0, 4.0]))
    assert torch.equal(returned, balancer.weights)
    other = type(balancer)(weights=(5.0, 6.0)) if isinstance(balancer, FixedWeights) else GradNorm()
    other.load_state_dict(balancer.state_dict())
    assert torch.equal(other.weights, balancer.weights)


def test_joint_targets_hold_what_they_were_given():
    boxes, classes = torch.tensor([[1.0, 0.0, 0.5, 0.5, 0.2, 0.2]]), torch.tensor([2, -1])
    targets = JointTargets(boxes, classes)
    assert targets.boxes is boxes and targets.classes is classes


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'gradnorm_plugin' has no attribute 'GradNrom'"):
        _ = gradnorm_plugin.GradNrom
    with pytest.raises(ImportError, match="cannot import name 'GradNrom'"):
        exec("from gradnorm_plugin import GradNrom")


def test_importing_the_package_and_its_command_loads_no_other_library():
    done = python("-c", "import sys, json, gradnorm_plugin, gradnorm_plugin.cli; print(json.dumps(sorted(sys.modules)))")
    loaded = set(json.loads(done.stdout))
    assert "gradnorm_plugin.cli" in loaded
    heavy = {"torch", "numpy", "cv2", "yaml", "pandas", "sklearn", "matplotlib", *UPSTREAMS}
    assert not {name.partition(".")[0] for name in loaded} & heavy


def test_version_of_the_command():
    done = python("-m", "gradnorm_plugin", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, version("yolov5-gradnorm"))


def test_help_of_the_command_names_every_command():
    done = python("-m", "gradnorm_plugin", "--help")
    assert done.returncode == 0
    listed = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {"setup", "train", "demo-data"} <= listed


@pytest.mark.parametrize("line", [["fly"], ["setup", "--fast"]], ids=str)
def test_wrong_usage_is_status_2(line):
    done = python("-m", "gradnorm_plugin", *line)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.strip().splitlines()[-1].startswith("yolov5-gradnorm: error:") and "Traceback" not in done.stderr


def test_imports_point_one_way():
    wrong = []
    for file in files():
        here = room(module_name(file))
        assert here in ALLOWED, f"{file} is in no known room: say in this test what it may import"
        for module, line in imports(file):
            if module.partition(".")[0] == PACKAGE.name and room(module) not in {here, *ALLOWED[here]}:
                wrong.append(f"{file}:{line} imports {module}, but {here} may import {sorted(ALLOWED[here])}")
    assert not wrong, "\n".join(wrong)


def test_the_demo_set_knows_little_of_the_package_and_the_package_little_of_it():
    taken = {module for file in (PACKAGE.parent / "gradnorm_demo").glob("*.py") for module, _ in imports(file)}
    assert {module for module in taken if module.partition(".")[0] == PACKAGE.name} == {
        "gradnorm_plugin.files",
        "gradnorm_plugin.reading",
    }
    users = {module_name(file) for file in files() for module, _ in imports(file) if module.partition(".")[0] == "gradnorm_demo"}
    assert users == {"gradnorm_plugin.data.phantom"}  # the command is imported by name


def test_no_module_imports_itself_through_others():
    graph = {module_name(file): {m for m, _ in imports(file) if m.partition(".")[0] == PACKAGE.name} for file in files()}
    TopologicalSorter(graph).prepare()  # CycleError names the circle


@pytest.mark.parametrize(
    ("where", "libraries"),
    [
        ("balancing", {"torch"}),
        ("upstream", set()),
        ("labels", set()),
        ("outputs", {"torch", "numpy", "matplotlib"}),
        ("model", {"torch", "yaml"}),
        ("cli", set()),
        ("terminal", set()),
        ("presets", set()),
    ],
)
def test_what_a_room_needs_from_outside(where, libraries):
    """The mathematics can be read without YOLO; the set-up runs before anything is installed."""
    found = {}
    for file in files():
        if room(module_name(file)) == where:
            found |= {module.partition(".")[0]: f"{file}:{line}" for module, line in imports(file)}
    assert found, f"there is no {where}"
    foreign = found.keys() - set(sys.stdlib_module_names) - {PACKAGE.name} - libraries
    assert not foreign, {name: found[name] for name in foreign}


def test_only_the_gateway_knows_where_upstream_is():
    wrong, in_gateway = [], 0
    for file in files():
        gateway = module_name(file) == "gradnorm_plugin.upstream.gateway"
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in {"sys.path", "sys.modules"}:
                in_gateway += gateway
                if not gateway:
                    wrong.append(f"{file}:{node.lineno} touches {ast.unparse(node)}")
        wrong += [f"{file}:{line} imports {m} by itself" for m, line in imports(file) if m.partition(".")[0] in UPSTREAMS]
    assert in_gateway > 0
    assert not wrong, "\n".join(wrong)


def test_without_a_command_the_help_is_shown():
    done = python("-m", "gradnorm_plugin")
    assert done.returncode == 0 and "usage: yolov5-gradnorm" in done.stdout and "predict" in done.stdout and not done.stderr


def test_a_mistyped_command_is_told_the_closest_one():
    done = python("-m", "gradnorm_plugin", "predcit")
    assert done.returncode == 2 and "there is no command predcit; did you mean predict?" in done.stderr


@pytest.mark.parametrize("command", ["train", "compare", "predict", "val", "export"])
@pytest.mark.parametrize("flag", ["--help", "--no-such-flag"])
def test_help_and_mistyped_flags_are_answered_without_pytorch(command, flag):
    code = f"""
import sys
from gradnorm_plugin.cli import main
try:
    main([{command!r}, {flag!r}])
except SystemExit as end:
    print(end.code, "torch" in sys.modules)
"""
    assert python("-c", code).stdout.splitlines()[-1] == ("0 False" if flag == "--help" else "2 False")
