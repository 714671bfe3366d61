"""The one door to upstream: what is swapped is put back, and modules come from the checkout and nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from gradnorm_plugin.upstream.checkout import find_checkout
from gradnorm_plugin.upstream.gateway import swapped, upstream, upstream_root

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def room() -> ModuleType:
    """A module with two names."""
    module = ModuleType("room")
    module.lamp, module.door = "off", "shut"
    return module


def python(code: str, folder: Path, *, ahead: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter in `folder`; `ahead` is where it looks for modules first."""
    search = os.pathsep.join(str(path) for path in (ahead, REPOSITORY) if path)
    environment = {**os.environ, "PYTHONPATH": search}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def output_of(code: str, folder: Path, *, ahead: Path | None = None) -> Any:
    """What `code` printed, as JSON."""
    done = python(code, folder, ahead=ahead)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def decoys(folder: Path) -> Path:
    """Modules with the names of upstream's."""
    for name in ("utils/__init__.py", "utils/callbacks.py", "models/__init__.py", "train.py", "val.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("decoy = True\n")
    return folder


def test_swapped_for_the_block_and_put_back(room):
    with swapped(room, lamp="on", door="open"):
        assert (room.lamp, room.door) == ("on", "open")
    assert (room.lamp, room.door) == ("off", "shut")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_put_back_after_any_exception(room, error):
    with pytest.raises(error), swapped(room, lamp="on", door="open"):
        raise error
    assert (room.lamp, room.door) == ("off", "shut")


def test_nested_swaps_end_in_turn(room):
    with swapped(room, lamp="dim"):
        with pytest.raises(ValueError), swapped(room, lamp="on"):
            raise ValueError
        assert room.lamp == "dim"
    assert room.lamp == "off"


def test_what_the_block_does_to_a_name_is_undone(room):
    with swapped(room, lamp="on", door="open"):
        room.lamp = "broken"
        del room.door
        room.door = "gone"
    assert (room.lamp, room.door) == ("off", "shut")


def test_a_method_of_a_class_is_the_very_same_afterwards():
    class Lamp:
        def light(self) -> str:
            return "dark"

    original = vars(Lamp)["light"]
    with swapped(Lamp, light=lambda self: "bright"):
        assert Lamp().light() == "bright"
    assert vars(Lamp)["light"] is original


def test_an_unknown_name_is_refused_before_anything_is_swapped(room):
    with pytest.raises(AttributeError) as refused, swapped(room, lamp="on", window="open", roof="off"):
        pytest.fail("the block must not run")
    message = str(refused.value)
    assert "room of YOLOv5 has no window, roof" in message and "python -m gradnorm_plugin setup" in message
    assert "lamp" not in message and room.lamp == "off" and not hasattr(room, "window")


def test_modules_of_this_process_are_the_checkouts():
    assert upstream_root() == find_checkout()
    for name in ("utils.callbacks", "utils.general", "models.yolo"):
        module = upstream(name)
        assert module is sys.modules[name]
        assert Path(module.__file__) == find_checkout().joinpath(*name.split(".")).with_suffix(".py")


@pytest.mark.parametrize("theirs_first", [True, False])
@pytest.mark.parametrize("name", ["utils", "utils.callbacks", "utils.without_init"])
def test_another_package_of_the_same_name_and_upstream_do_not_meet(tmp_path, name, theirs_first):
    """Theirs is imported before or after; a package, a module that upstream has too, a folder without `__init__.py`."""
    folder = decoys(tmp_path / "decoys")
    if name == "utils.without_init":
        (folder / "utils" / "__init__.py").rename(folder / "utils" / "without_init.py")
    theirs = f"import {name}"
    ours = """
before = list(sys.path)
from gradnorm_plugin.upstream.gateway import upstream
files = [upstream(name).__file__ for name in ("utils.callbacks", "utils")] if "torch" in sys.argv else \
    [upstream(name).__file__ for name in ("utils.callbacks", "utils")]
unmoved = before == sys.path
"""
    last = f"print(json.dumps([files, unmoved, sys.modules[{name!r}].decoy, str(sys.modules[{name!r}].__file__)]))"
    parts = [theirs, ours] if theirs_first else [ours, theirs]
    files, unmoved, decoy, place = output_of("\n".join(["import json, sys", *parts, last]), tmp_path, ahead=folder)
    assert [Path(file) for file in files] == [
        find_checkout() / "utils" / "callbacks.py",
        find_checkout() / "utils" / "__init__.py",
    ]
    assert unmoved and decoy and Path(place).is_relative_to(folder)


def test_sys_path_gains_the_checkout_once_and_keeps_its_order(tmp_path):
    """The checkout has to stay: upstream imports parts of itself late, and spawned workers import it anew."""
    code = """
import json, sys
from gradnorm_plugin.upstream.gateway import upstream
before = list(sys.path)
for name in ("utils.callbacks", "utils", "utils.callbacks"):
    upstream(name)
once = list(sys.path)
try:
    upstream("utils.there_is_no_such_module")
except ModuleNotFoundError:
    pass
print(json.dumps([before, once, list(sys.path)]))
"""
    before, once, at_last = output_of(code, tmp_path)
    root = str(find_checkout())
    assert root not in before
    assert once == at_last == [root, *before]


def test_a_checkout_already_on_sys_path_stays_where_it_was(tmp_path):
    code = """
import json, sys
from gradnorm_plugin.upstream.gateway import upstream
sys.path.append(%r)
before = list(sys.path)
upstream("utils.callbacks")
print(json.dumps([before, list(sys.path)]))
"""
    before, after = output_of(code % str(find_checkout()), tmp_path)
    assert after == before


def test_everything_works_beside_a_project_that_has_all_of_upstreams_names(tmp_path):
    """Imports within upstream's functions, checkpoints that name their classes, PyTorch's pickles: all find upstream's."""
    folder = decoys(tmp_path / "decoys")
    for name in ("general", "plots", "trust", "augmentations", "dataloaders"):
        (folder / "utils" / f"{name}.py").write_text("decoy = True\n")
    for name in ("yolo", "common", "experimental"):
        (folder / "models" / f"{name}.py").write_text("decoy = True\n")
    code = """
import json, sys
import models.common, utils.general
import numpy as np, torch
from gradnorm_plugin import JointDetectionModel, Predictor
from gradnorm_plugin.upstream.gateway import under_their_own_names
import models.yolo, train, utils.plots
model = JointDetectionModel("yolov5n.yaml", nc=2, classification_names=["a", "b"]).half()
with under_their_own_names():
    torch.save({"model": model, "ema": None, "opt": {"imgsz": 64}}, "joint.pt")
found = Predictor("joint.pt", conf_thres=0.001, max_det=3)(np.zeros((64, 64, 3), np.uint8))
assert found.draw().shape == (64, 64, 3)
theirs = [models, models.common, models.yolo, utils, utils.general, utils.plots, train]
print()
print(json.dumps([list(found.image_class.probabilities), [sys.modules[module.__name__].decoy for module in theirs]]))
"""
    done = python(code, tmp_path, ahead=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [["a", "b"], [True] * 7]
    names = torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "joint.pt")
    assert "models.common.Conv" in names


def test_a_started_script_of_another_checkout_is_the_one_in_use(tmp_path):
    """`python elsewhere/detect.py` loads a joint checkpoint: the YOLOv5 that runs already is the one to use."""
    other = tmp_path / "elsewhere"
    for name in ("train.py", "val.py", "models/__init__.py", "models/yolo.py", "utils/__init__.py", "utils/loss.py"):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text("other = True\n")
    code = """
import json
import models
from gradnorm_plugin.upstream.gateway import upstream, upstream_root
print(json.dumps([str(upstream_root()), upstream("utils.loss").__file__]))
"""
    root, file = output_of(code, tmp_path, ahead=other)
    assert Path(root) == other and Path(file) == other / "utils" / "loss.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_fork_does_not_end_what_its_parent_left_behind(tmp_path):
    """In a fork the parent's garbage stays: the end of an ONNX Runtime session waits for threads that are not there."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [64, 64]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "x"], ["y"])], "square", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "square.onnx")
    code = """
import gc, multiprocessing, os, time
import numpy, onnxruntime
from gradnorm_plugin.upstream import gateway
gc.disable()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
session = onnxruntime.InferenceSession("square.onnx", options, providers=["CPUExecutionProvider"])
for _ in range(20):
    session.run(None, {"x": numpy.ones((64, 64), numpy.float32)})
left_behind = [session]
left_behind.append(left_behind)
time.sleep(1)  # until its threads are idle
del session, left_behind
child = multiprocessing.get_context("fork").Process(target=gc.collect)
child.start()
child.join(15)
print(child.exitcode is not None, flush=True)
child.kill()
os._exit(0)
"""
    assert python(code, tmp_path).stdout.split() == ["True"]
