"""Files from strangers: genuine ones load, those that would run a program are refused, and the program does not run."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import os
import pathlib
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torchvision
import yaml
from forgery import Call, Filled, Named, New, forge
from joint_data import write_joint_dataset
from torch import nn
from torchvision import transforms as T
from upstream_data import write_plain_dataset

from gradnorm_plugin import cli
from gradnorm_plugin.data.description import DescriptionError, find_dataset
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.outputs import read_outputs
from gradnorm_plugin.training.run import main
from gradnorm_plugin.upstream.checkout import REPOSITORY, find_checkout
from gradnorm_plugin.upstream.gateway import swapped, upstream

common, yolo, experimental = upstream("models.common"), upstream("models.yolo"), upstream("models.experimental")
augmentations = upstream("utils.augmentations")
general, dataloaders, torch_utils = upstream("utils.general"), upstream("utils.dataloaders"), upstream("utils.torch_utils")
trust, literals = upstream("utils.trust"), upstream("utils.literals")
OUTPUTS = read_outputs({"view": {"classes": ["a", "b"]}, "finding": {"labels": ["c"]}, "ef": {"value": "%", "range": [0, 100]}})
ROOT = find_checkout()
YAMLS = sorted((ROOT / "models").rglob("*.yaml"))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that a hostile program would leave."""
    return tmp_path / "marker"


def tiny(name: str = "yolov5n.yaml", **changes: Any) -> Any:
    """A narrow model of upstream's yaml."""
    cfg = yaml.safe_load(next((ROOT / "models").rglob(name)).read_text(errors="ignore")) | {"width_multiple": 0.125} | changes
    return (yolo.SegmentationModel if "seg" in name else yolo.DetectionModel)(cfg, nc=2)


def checkpoint(model: nn.Module) -> dict[str, Any]:
    """What upstream's training writes after an epoch."""
    optimizer = torch_utils.smart_optimizer(model, "SGD", 0.01, 0.9, 1e-5)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return {
        "epoch": 1,
        "best_fitness": upstream("utils.metrics").fitness(np.linspace(0, 1, 7).reshape(1, -1)),
        "model": torch_utils.de_parallel(model).half(),
        "ema": torch_utils.ModelEMA(model).ema.half(),
        "updates": 7,
        "optimizer": optimizer.state_dict(),
        "opt": {"weights": "", "imgsz": 64, "freeze": [0], "bucket": None, "hyp": {"lr0": 0.01}, "save_dir": Path("runs")},
        "git": {"remote": None, "branch": None, "commit": None},
        "date": "2023-06-01T12:00:00",
    }


def assert_same(found: Any, expected: Any) -> None:
    """Two checkpoints are alike in every object, number and name."""
    if isinstance(expected, pathlib.PurePath):
        assert str(found) == str(expected)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype and found.tolist() == expected.tolist()
    else:
        assert type(found) is type(expected)
        if isinstance(expected, nn.Module) or type(expected).__module__ in TRANSFORMS:
            assert_same(vars(found), vars(expected))
        elif isinstance(expected, torch.Tensor):
            assert found.dtype == expected.dtype and torch.equal(found, expected)
        elif isinstance(expected, dict):
            assert_same(list(found.items()), list(expected.items()))
        elif isinstance(expected, (list, tuple)):
            assert len(found) == len(expected)
            for pair in zip(found, expected, strict=True):
                assert_same(*pair)
        else:
            assert found == expected


TRANSFORMS = "torchvision.transforms.transforms", "utils.augmentations"


def classifier(*transforms: Any) -> nn.Module:
    """A classifier with the transforms of its pictures, as training attaches them, or with others."""
    model = yolo.ClassificationModel(model=tiny(), nc=3, cutoff=10)
    model.transforms = torchvision.transforms.Compose(transforms) if transforms else augmentations.classify_transforms(32)
    return model


GENUINE = {
    "v5": tiny,
    "P6": lambda: tiny("yolov5n6.yaml"),
    "v3": lambda: tiny("yolov3-tiny.yaml"),
    "segmentation": lambda: tiny("yolov5n-seg.yaml"),
    "transformer": lambda: tiny("yolov5s-transformer.yaml"),
    "ghost": lambda: tiny("yolov5s-ghost.yaml"),
    "classification": classifier,
    "classification of version 6": lambda: classifier(T.ToTensor(), T.Resize(32), T.CenterCrop(32), T.Normalize([0.5], [0.5])),
    "letterbox": lambda: classifier(augmentations.LetterBox((32, 32)), augmentations.ToTensor()),
    "torchvision": torchvision.models.shufflenet_v2_x0_5,
    "ResNet": torchvision.models.resnet18,  # keeps a class, nn.BatchNorm2d
    "joint": lambda: JointDetectionModel(tiny().yaml, classification_names=["a", "b"]),
    "joint with several outputs": lambda: JointDetectionModel(tiny().yaml, outputs=OUTPUTS),
    "experimental": lambda: nn.Sequential(experimental.Sum(3), experimental.MixConv2d(8, 8), common.C3SPP(8, 8)),
    "ensemble": lambda: experimental.Ensemble().append(tiny()).append(tiny()),
}


@pytest.mark.parametrize("kind", GENUINE)
def test_a_genuine_checkpoint_is_what_it_was_and_so_is_a_copy_of_it(kind, tmp_path):
    file, copy = tmp_path / "genuine.pt", tmp_path / "copy.pt"
    torch.save(checkpoint(GENUINE[kind]()), file)
    found = trust.load_checkpoint(file)
    assert_same(found, torch.load(file, weights_only=False))
    torch.save(found, copy)
    assert_same(trust.load_checkpoint(copy), found)
    # The copy is for every YOLOv5, also for one without our loader.
    asked = [set(torch.serialization.get_unsafe_globals_in_checkpoint(each)) for each in (file, copy)]
    assert asked[0] == {name.replace(".Pure", ".") for name in asked[1]} and not any("trust" in name for name in asked[0])


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_old_forms_load(core, tmp_path):
    model = tiny()
    model.names, model.nc = ["a", "b"], 2
    dtype = Filled(Call(np.dtype, "f8", False, True), (3, "<", None, None, None, -1, -1, 0))
    array = Call(Named(f"{core}.multiarray", "_reconstruct"), np.ndarray, (0,), b"b")
    contents = {
        "model": Filled(New(Named("models.yolo", "Model")), vars(model)),
        "best_fitness": Filled(array, (1, (2,), dtype, False, np.arange(2.0).tobytes())),
        "number": Call(Named(f"{core}.multiarray", "scalar"), dtype, np.float64(0.5).tobytes()),
        "windows": Call(Named("pathlib", "WindowsPath"), "C:\\", "runs"),
        "python 3.13": Call(Named("pathlib._local", "PosixPath"), "runs", "train"),
    }
    file = forge(contents, tmp_path / "old.pt")
    found = trust.load_checkpoint(file)
    assert type(found["model"]) is yolo.DetectionModel
    assert found["best_fitness"].tolist() == [0, 1] and found["number"] == 0.5
    assert str(found["windows"]) == "C:\\runs" and str(found["python 3.13"]) == "runs/train"
    loaded = experimental.attempt_load([str(file), str(file)])
    assert type(loaded) is experimental.Ensemble and loaded.names == {0: "a", 1: "b"}
    assert loaded(torch.zeros(1, 3, 64, 64))[0].shape[2] == 7


def touch(marker: Path) -> str:
    """Python that leaves the marker."""
    return f"__import__('os').system('touch {marker}')"


REFUSED = {
    "posix.system": lambda marker: Call(os.system, f"touch {marker}"),
    "commands.Popen": lambda marker: Call(subprocess.Popen, ["touch", str(marker)]),
    "utils.general.check_output": lambda marker: Call(Named("utils.general", "check_output"), ["touch", str(marker)]),
    "builtins.eval": lambda marker: Call(eval, touch(marker)),
    "builtins.exec": lambda marker: Call(exec, touch(marker)),
    "models.yolo.os.system": lambda marker: Call(Named("models.yolo", "os.system"), f"touch {marker}"),
    "models.common.Path.touch": lambda marker: Call(Named("models.common", "Path.touch"), marker),
    "models.yolo.parse_model": lambda marker: Call(yolo.parse_model, {}, []),
    "torchvision.transforms.transforms.Lambda": lambda _: classifier(Filled(New(T.Lambda), {"lambd": 1})),
    "os.PathLike": lambda _: classifier(Call(Named("os", "PathLike"))),
    "torchvision.transforms._presets.ImageClassification": lambda _: New(
        Named("torchvision.transforms._presets", "ImageClassification")
    ),
    "utils.augmentations.Albumentations": lambda _: New(augmentations.Albumentations),
    "utils.augmentations.os.system": lambda marker: Call(Named("utils.augmentations", "os.system"), f"touch {marker}"),
    "functools.partial": lambda marker: New(functools.partial, os.system, f"touch {marker}"),
    "torch.serialization.load": lambda marker: Call(torch.load, str(marker)),
    "models.common.DetectMultiBackend": lambda marker: Call(common.DetectMultiBackend, str(marker)),
    "models.common.AutoShape": lambda _: Filled(New(common.AutoShape), {}),
    "torch.nn.parallel.data_parallel.DataParallel": lambda _: Filled(New(nn.DataParallel), {}),
    "not_imported_yet.Layer": lambda _: New(Named("not_imported_yet", "Layer")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_checkpoint_needs_is_refused_by_name(name, tmp_path, marker, monkeypatch):
    (tmp_path / "not_imported_yet.py").write_text(touch(marker))
    monkeypatch.syspath_prepend(tmp_path)
    model = tiny()
    model._forward_hooks[0] = REFUSED[name](marker)
    file = forge({"model": model}, tmp_path / "bad.pt")
    with pytest.raises(trust.TrustError) as refusal:
        trust.load_checkpoint(file)
    assert str(refusal.value).startswith(f"{file} is refused: it asks for ") and name in str(refusal.value)
    assert 'YOLOV5_TRUST="' in str(refusal.value)
    assert not marker.exists()


def test_no_constructor_and_no_method_runs_while_a_file_is_read(tmp_path, monkeypatch):
    ran = []
    for kind, method in ((yolo.DetectionModel, "__init__"), (nn.Identity, "forward"), (common.Conv, "__setstate__")):
        monkeypatch.setattr(kind, method, lambda *_, method=method: ran.append(method))
    layer = Filled(New(nn.Identity), vars(nn.ReLU()))
    for call in (
        Call(yolo.DetectionModel, {"nc": 1}),
        New(yolo.DetectionModel, {"nc": 1}),
        Call(layer, 1),
        Call(Named("torch._tensor", "_rebuild_from_type_v2"), layer, Named("torch", "Tensor"), (1,), {}),
        [Filled(New(common.Conv), {}), Call(yolo.DetectionModel, 1)],
        Call(getattr, yolo.Detect, "__init__"),
        Call(getattr, common.Conv, "forward"),
        Call(getattr, Named("collections", "OrderedDict"), "fromkeys"),
        Call(Call(getattr, yolo.Detect, "forward"), 1, 2),
        Call(T.Compose, [1]),
        New(T.Compose, [1]),
        Call(Filled(New(T.Compose), {"transforms": [1]}), 1),
        Call(T.InterpolationMode, "More", {"a": 1}),
        Call(T.InterpolationMode, layer),
        Call(Named("pathlib", "PurePosixPath"), layer),
    ):
        with pytest.raises(trust.TrustError, match="bad.pt (is no checkpoint of YOLOv5|cannot be loaded)"):
            trust.load_checkpoint(forge({"model": call}, tmp_path / "bad.pt"))
    assert not ran
    trust.load_checkpoint(forge(Filled(New(common.Conv), {}), tmp_path / "good.pt"))
    assert ran == ["__setstate__"]


def test_numpy_cannot_be_made_to_take_bytes_for_objects(tmp_path):
    forged = bytes(8)  # what NumPy would take for the address of an object; at 0 it sees None, so that a failure is no crash
    plain = Call(np.dtype, "f8", False, True)
    objects = Filled(plain, (3, "|", None, ("a",), {"a": (Call(np.dtype, "O8"), 0)}, 8, 1, 0))
    array = Call(Named("numpy.core.multiarray", "_reconstruct"), np.ndarray, (0,), b"b")
    assert trust.load_checkpoint(forge(Call(np.ndarray, (1,), "O", forged), tmp_path / "array.pt")) is None
    found = trust.load_checkpoint(forge(Filled(array, (1, (1,), objects, False, forged)), tmp_path / "dtype.pt"))
    assert found.dtype == np.float64 and np.dtype("f8").fields is None
    for hostile in (
        Call(np.dtype, "V8"),
        Call(np.dtype, [("a", "O")]),
        Filled(array, (1, (1,), Call(np.dtype, "O8"), False, forged)),
        Filled(array, (1, (1,), Filled(Call(np.dtype, "O8", False, True), (3, "|", None, None, None, 8, 1, 0)), False, forged)),
        Filled(array, (1, (9,), plain, False, forged)),
        Filled(array, *[(1, (1,), plain, False, forged)] * 2),
        Call(Named("numpy.core.multiarray", "scalar"), Call(np.dtype, "O8"), forged),
    ):
        with pytest.raises(trust.TrustError):
            trust.load_checkpoint(forge(hostile, tmp_path / "bad.pt"))


def test_a_layer_of_ones_own_loads_once_it_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "own_layers.py").write_text(
        "from torch import nn\nclass Own(nn.Module):\n    def __init__(self):\n        raise RuntimeError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    file = forge({"model": Filled(New(Named("own_layers", "Own")), vars(nn.Identity()))}, tmp_path / "own.pt")
    with pytest.raises(trust.TrustError, match='YOLOV5_TRUST="own_layers.Own"'):
        trust.load_checkpoint(file)
    assert "own_layers" not in sys.modules
    monkeypatch.setenv("YOLOV5_TRUST", "other.Layer, own_layers.Own")
    assert type(trust.load_checkpoint(file)["model"]).__name__ == "Own"
    with pytest.raises(trust.TrustError, match="it needs own_layers.Gone, but module 'own_layers' has no attribute 'Gone'"):
        monkeypatch.setenv("YOLOV5_TRUST", "own_layers.Gone")
        trust.load_checkpoint(forge(New(Named("own_layers", "Gone")), tmp_path / "gone.pt"))


def test_layers_that_models_yolo_has_imported_load_and_others_are_refused_before_training(tmp_path, monkeypatch):
    """A fork keeps its layers where it likes; `models.yolo` imports them, and nothing else that these modules hold is trusted."""
    (tmp_path / "fork_layers.py").write_text(
        "from fork_parts import Part\nimport fork_other\nfrom os import system\nfrom torch import nn\n"
        "class Outer(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.inner = Inner()\n"
        "class Inner(nn.Module):\n    part = Part\n"
        "class NoLayer: pass\n"
    )
    for name, kind in ("fork_parts", "Part"), ("fork_other", "Other"):
        (tmp_path / f"{name}.py").write_text(f"from torch import nn\nclass {kind}(nn.Module): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    fork = importlib.import_module("fork_layers")
    model = nn.Sequential(fork.Outer(), fork.Part())
    torch.save({"model": model}, tmp_path / "fork.pt")
    for refused in (functools.partial(trust.load_checkpoint, tmp_path / "fork.pt"), functools.partial(trust.check_layers, model)):
        with pytest.raises(trust.TrustError, match=r'YOLOV5_TRUST="fork_layers.Inner,fork_layers.Outer,fork_parts.Part"'):
            refused()
    monkeypatch.setattr(yolo, "Outer", fork.Outer, raising=False)
    assert_same(trust.load_checkpoint(tmp_path / "fork.pt"), {"model": model})
    trust.check_layers(model)
    for name in "fork_layers.NoLayer", "fork_layers.system", "fork_layers.os.system", "fork_other.Other":
        with pytest.raises(trust.TrustError, match=f"is refused: it asks for {name}"):
            trust.load_checkpoint(forge(New(Named(*name.split(".", 1))), tmp_path / "bad.pt"))


@pytest.mark.parametrize("script", ["train.py", "segment/train.py", "classify/train.py"])
def test_every_training_asks_before_it_starts(script):
    code = (ROOT / script).read_text(encoding="utf-8")
    assert code.index(" check_layers(model)") < code.index(" smart_optimizer(")


def test_threads_load_at_once_and_leave_nothing_behind(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    files = [forge({"model": model}, tmp_path / f"{i}.pt") for i, model in enumerate([tiny(), nn.ReLU(), common.Conv(3, 3)])]
    with ThreadPoolExecutor(6) as pool:
        kinds = [type(found["model"]) for found in pool.map(trust.load_checkpoint, files * 4)]
    assert kinds == [yolo.DetectionModel, nn.ReLU, common.Conv] * 4
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("contents", [b"", b"no pickle", pickle.dumps({"model": 1}), b"PK\3\4" + bytes(60)])
def test_what_is_no_checkpoint_is_one_error(contents, tmp_path):
    (tmp_path / "junk.pt").write_bytes(contents)
    with pytest.raises(trust.TrustError, match="junk.pt is no checkpoint of YOLOv5"):
        trust.load_checkpoint(tmp_path / "junk.pt")
    with pytest.raises(FileNotFoundError):
        trust.load_checkpoint(tmp_path / "missing.pt")


def test_the_strings_of_upstreams_yamls_mean_what_eval_said():
    scope, names, checked = vars(yolo), {"nc": 2, "anchors": [[1, 2]]}, 0
    for file in YAMLS:
        content = yaml.safe_load(file.read_text(errors="ignore"))
        for _, _, layer, arguments in content.get("backbone", []) + content.get("head", []):
            assert literals.find_layer(layer, scope) is eval(layer, scope)
            for text in filter(lambda argument: isinstance(argument, str), arguments):
                checked += 1
                try:
                    assert literals.yaml_value(text, names) == eval(text, scope, names)
                except NameError:
                    assert literals.yaml_value(text, names) == text
        if "activation" in content:
            assert repr(literals.make_activation(content["activation"])) == repr(eval(content["activation"], scope))
    assert len(YAMLS) > 25 and checked > 50


def test_other_arguments_of_yamls():
    for text, expected in {"None": None, "True": True, "0.5": 0.5, "[1, 2]": [1, 2], "nearest-exact": "nearest-exact"}.items():
        assert literals.yaml_value(text) == expected
    assert literals.make_activation("nn.SiLU(inplace=True)").inplace
    assert isinstance(literals.yaml_value("nn.Hardswish()"), nn.Hardswish)


HOSTILE_TEXTS = [
    "{}",
    "nn.ReLU({})",
    "nn.ReLU(inplace={})",
    "nn.ReLU(*[{}])",
    "[{} for _ in (1,)]",
    "(lambda: {})()",
    "f'{{{}}}'",
]


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
@pytest.mark.parametrize("place", ["layer", "argument", "activation"])
def test_code_in_a_model_yaml_is_refused(text, place, marker):
    code = text.format(touch(marker))
    layer = [-1, 1, code, []] if place == "layer" else [-1, 1, "Conv", [8, code]]
    changes = {"activation": code} if place == "activation" else {"backbone": [layer]}
    with pytest.raises(trust.TrustError, match="a model yaml"):
        tiny(**changes)
    assert not marker.exists()


@pytest.mark.parametrize("layer", ["DetectMultiBackend", "AutoShape", "DetectionModel", "Path", "nn.init", "nn.functional", "nn"])
def test_only_layers_are_built_from_a_model_yaml(layer):
    with pytest.raises(trust.TrustError, match="which is none of YOLOv5 or torch.nn"):
        tiny(backbone=[[-1, 1, layer, ["other.torchscript"]]])
    with pytest.raises(trust.TrustError, match="a model yaml"):
        tiny(activation=layer)


def test_class_names_in_onnx_metadata_are_not_run(tmp_path, marker):
    value = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    result = onnx.helper.make_tensor_value_info("output0", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["images"], ["output0"])], "g", [value], [result])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    file = tmp_path / "model.onnx"
    for names, expected in (("{0: 'a', 1: 'b'}", {0: "a", 1: "b"}), ("['a']", {0: "a"}), (touch(marker), None), ("3", None)):
        onnx.helper.set_model_props(model, {"stride": "32", "names": names})
        onnx.save(model, file)
        if expected is None:
            with pytest.raises(trust.TrustError, match="model.onnx is refused: its class names are no list and no dict"):
                common.DetectMultiBackend(str(file))
        else:
            assert common.DetectMultiBackend(str(file)).names == expected
    assert not marker.exists()


def test_a_hostile_label_cache_is_not_run_and_replaced(tmp_path, marker):
    write_plain_dataset(tmp_path)
    cache = tmp_path / "labels" / "train.cache"
    with cache.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(pickle.dumps(np.array(_Attack(f"touch {marker}"), dtype=object)))
    np.load(cache, allow_pickle=True)
    assert marker.exists()  # it would run
    marker.unlink()
    dataset = dataloaders.LoadImagesAndLabels(str(tmp_path / "images" / "train"))
    assert len(dataset.labels) == 8 and not marker.exists()
    assert_same(trust.load_cache(cache), np.load(cache, allow_pickle=True).item())
    with swapped(dataloaders.LoadImagesAndLabels, cache_labels=lambda *_: pytest.fail("the cache is not used")):
        again = dataloaders.LoadImagesAndLabels(str(tmp_path / "images" / "train"))
    assert type(again.labels[0]) is np.ndarray
    assert_same(list(again.labels), list(dataset.labels))


class _Attack:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def test_upstreams_scripts_refuse_it(tmp_path, marker):
    data = write_plain_dataset(tmp_path / "data", images=2)
    bad = str(forge({"model": tiny(), "opt": Call(os.system, f"touch {marker}")}, tmp_path / "bad.pt"))
    model = tiny()
    model.yaml["backbone"][0][3][0] = touch(marker)
    bad_yaml = forge({"model": model}, tmp_path / "bad_yaml.pt")
    train = ["--weights", str(bad_yaml), "--data", str(data), "--workers", "0", "--project", str(tmp_path / "runs")]
    commands = {
        "val.py": ["--weights", bad],
        "detect.py": ["--weights", bad],
        "export.py": ["--weights", bad],
        "segment/train.py": ["--resume", bad],
        "train.py": train,
    }
    steps = [{"name": script, "script": str(ROOT / script), "arguments": flags} for script, flags in commands.items()]
    (tmp_path / "commands.json").write_text(json.dumps(steps))
    driver = Path(__file__).with_name("upstream_driver.py")
    done = subprocess.run(
        [sys.executable, driver, tmp_path / "commands.json", "--without-plugin"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for script in commands:
        printed, _, done_rest = done.stdout.partition(f"@@ {script} failed")
        reason = "a model yaml says" if script == "train.py" else f"{bad} is refused: it asks for posix.system"
        assert f"utils.trust.TrustError: {reason}" in printed and done_rest, done.stdout
        done.stdout = done_rest
    assert not marker.exists()


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_joint_dataset(tmp_path_factory.mktemp("joint"))


def refused(capsys: pytest.CaptureFixture[str], *flags: Any) -> str:
    """Start our training, which must end in one error; return it."""
    with pytest.raises(SystemExit, match="1"):
        main([str(flag) for flag in flags])
    error = capsys.readouterr().err
    assert error.count("ERROR: ") == 1 and "Traceback" not in error
    return error


def test_our_training_refuses_it_in_one_line(joint, tmp_path, marker, capsys):
    small = [
        "--data",
        joint,
        "--imgsz",
        64,
        "--epochs",
        1,
        "--workers",
        0,
        "--hyp",
        "hyp.scratch-low.yaml",
        "--project",
        tmp_path,
    ]
    bad = forge({"model": tiny(), "x": Call(os.system, f"touch {marker}")}, tmp_path / "bad.pt")
    assert f"--weights {bad} is refused: it asks for posix.system" in refused(capsys, *small, "--weights", bad)
    model = tiny()
    model.yaml["backbone"][0][3][0] = touch(marker)
    hostile_yaml = forge({"model": model, "ema": None}, tmp_path / "yaml.pt")
    assert "a model yaml says" in refused(capsys, *small, "--weights", hostile_yaml)
    last = tmp_path / "run" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    (tmp_path / "run" / "opt.yaml").write_text("{}")
    forge({"epoch": Call(os.system, f"touch {marker}")}, last)
    assert f"--resume {last} is refused: it asks for posix.system" in refused(capsys, "--resume", last)
    assert not marker.exists()


@pytest.mark.parametrize("command", ["val", "predict", "strip"])
def test_our_commands_refuse_it_in_one_line(command, joint, tmp_path, marker, capsys):
    bad = forge({"model": tiny(), "x": Call(os.system, f"touch {marker}")}, tmp_path / "bad.pt")
    arguments = {
        "val": ["--weights", str(bad), "--data", str(joint), "--imgsz", "64", "--project", str(tmp_path / "runs")],
        "predict": ["--weights", str(bad), "--source", str(joint.parent / "images" / "val"), "--project", str(tmp_path / "runs")],
        "strip": [str(bad)],
    }
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, *arguments[command]])
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and f"{bad} is refused: it asks for posix.system" in error and "Traceback" not in error
    assert not marker.exists() and not list((tmp_path / "runs").glob("*"))


def test_code_under_download_runs_only_if_the_user_says_so(tmp_path, marker):
    data = tmp_path / "data.yaml"
    content = {"path": str(tmp_path / "gone"), "train": "a", "val": "b", "names": ["a"], "classification_names": ["b", "c"]}
    for script in (touch(marker), f"bash -c 'touch {marker}'", f"http; {touch(marker)}", f"bash touch {marker}; echo .zip"):
        data.write_text(yaml.safe_dump({**content, "download": script}))
        with pytest.raises(DescriptionError, match="its `download` is code: read it, and let it run with --allow-download"):
            find_dataset(data)
    assert not marker.exists()
    data.write_text(yaml.safe_dump({**content, "download": touch(marker)}))
    find_dataset(data, allow_download=True)
    assert marker.exists()


@pytest.mark.parametrize(
    "script",
    [
        None,
        "https://example.com/images.zip",
        *(yaml.safe_load((REPOSITORY / "data" / name).read_text())["download"] for name in ("joint.yaml", "heart-outputs.yaml")),
        "from gradnorm_plugin.data import phantom\nphantom.main(['--root', str(yaml['path'])])\n",  # as it was
    ],
)
def test_archives_and_our_own_demo_data_are_fetched(script, tmp_path):
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"download": script}))
    with swapped(general, check_dataset=lambda data, autodownload: {"autodownload": autodownload}):
        assert find_dataset(tmp_path / "data.yaml") == {"autodownload": True}


def test_nothing_else_in_upstream_runs_what_a_file_says():
    """A moved upstream with a new `eval` or unrestricted load fails here."""
    known = {
        ("utils/general.py", "exec"),  # `download` of a data yaml
        ("utils/dataloaders.py", "eval"),  # of digits: the number of a camera
        ("benchmarks.py", "eval"),  # of an option
    }
    found = set()
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name, options = ast.unparse(node.func), {option.arg: ast.unparse(option.value) for option in node.keywords}
                dangerous = name in {"eval", "exec", "torch.load", "pickle.load", "pickle.loads", "yaml.load"}
                if (dangerous and options.get("weights_only") != "True") or "allow_pickle" in options:
                    found.add((file.relative_to(ROOT).as_posix(), name))
    assert found - known <= {("models/tf.py", "yaml.load")}  # with FullLoader, of a file that the user names
