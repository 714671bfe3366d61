"""Promise 5 of the design: upstream's `export.py` gives both heads by name in each format, and each agrees with PyTorch."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from joint_checkpoint import IMAGE_CLASSES, read_images, write_checkpoint
from joint_data import write_joint_dataset
from upstream_data import CLASS_NAMES
from upstream_driver import run as run_script

from gradnorm_plugin.evaluation.command import main as val
from gradnorm_plugin.export import Suppression, suppress
from gradnorm_plugin.export import main as export
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.upstream.checkout import find_checkout
from gradnorm_plugin.upstream.gateway import upstream

os.environ.setdefault("CI", "true")  # openvino reports its uses to its maker, except in CI

DRIVER = Path(__file__).with_name("upstream_driver.py")
SIZE = 64
FILES = {"pt": "best.pt", "onnx": "best.onnx", "torchscript": "best.torchscript", "openvino": "best_openvino_model"}
EXPORTS = {  # name: its formats, more flags
    "joint": (["onnx", "torchscript", "openvino"], []),
    "dynamic": (["onnx", "openvino"], ["--dynamic"]),
    "simplified": (["onnx"], ["--dynamic", "--simplify"]),
    "guided": (["onnx", "torchscript", "openvino"], []),
    "both_dynamic": (["onnx", "openvino"], ["--dynamic"]),
    "four": (["onnx"], ["--batch-size", "4"]),
    "plain": (["onnx", "torchscript", "openvino"], []),
}
EVERY = [(name, form) for name, (forms, _) in EXPORTS.items() for form in forms]
METADATA = {"stride": 32, "names": CLASS_NAMES, "classification_names": IMAGE_CLASSES, "imgsz": [SIZE, SIZE]}
OF_JOINT_MODELS = ("classification_names", "imgsz")


def exported_from(name: str) -> str:
    """The export whose checkpoint all exports of the same network have."""
    return {"guided": "guided", "both_dynamic": "both_dynamic"}.get(name, "joint")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints, exported by upstream's command: of each head in several ways, and `plain`, which only detects."""
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("export")
    data = write_joint_dataset(folder / "data", images=16)
    images = read_images(folder / "data" / "images" / "train", SIZE)
    for name in EXPORTS:
        (folder / name).mkdir()
    write_checkpoint(folder / "plain" / "best.pt", images, joint=False)
    joint = write_checkpoint(folder / "joint" / "best.pt", images)
    write_checkpoint(folder / "guided" / "best.pt", images, head="guided")
    for name in ("dynamic", "simplified", "four"):
        shutil.copy(joint, folder / name)
    write_checkpoint(folder / "both_dynamic" / "best.pt", images, head="both")
    common = ["--imgsz", str(SIZE), "--project", str(folder / "runs"), "--name"]
    commands = {
        name: ["export.py", "--imgsz", str(SIZE), "--weights", str(folder / name / "best.pt"), *more, "--include", *forms]
        for name, (forms, more) in EXPORTS.items()
    }
    for form, file in FILES.items():
        weights = ["--weights", str(folder / "joint" / file)]
        detect = ["--source", str(folder / "data" / "images" / "val"), "--save-txt", "--save-conf"]
        commands[f"detect {form}"] = ["detect.py", *weights, *detect, *common, f"detect_{form}"]
        if form != "pt":
            commands[f"val {form}"] = ["val.py", *weights, "--data", str(data), "--workers", "0", *common, f"val_{form}"]
    (folder / "output.json").write_text(json.dumps(run(folder, commands)), encoding="utf-8")
    return folder


def run(folder: Path, commands: dict[str, list[str]]) -> dict[str, str]:
    """Run scripts of upstream in one process without a network, return what each printed; each must end well."""
    steps = [{"name": n, "script": str(find_checkout() / script), "arguments": a} for n, (script, *a) in commands.items()]
    (folder / "commands.json").write_text(json.dumps(steps), encoding="utf-8")
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(DRIVER.parents[1]),
        "YOLOV5_CONFIG_DIR": str(folder),
    }
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(folder / "commands.json")],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=300,
    )
    parts = re.split(r"^@@ (.+) (ok|failed)$", done.stdout, flags=re.MULTILINE)
    assert parts[1::3] == list(commands) and set(parts[2::3]) == {"ok"}, done.stdout
    return dict(zip(parts[1::3], parts[0:-1:3], strict=True))


def pictures(folder: Path, size: int = SIZE) -> torch.Tensor:
    return read_images(folder / "data" / "images" / "val", size)


def backend(weights: Path) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Images, one at a time, to boxes and probabilities."""
    model = JointBackend(str(weights))
    assert model.classification_names == IMAGE_CLASSES and model.names == CLASS_NAMES

    def answer(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            boxes, probabilities = zip(*[model(image[None]) for image in images], strict=True)
        return torch.cat(boxes), torch.cat(probabilities)

    return answer


@pytest.mark.parametrize("name", ["joint", "dynamic", "simplified", "plain", "val onnx", "val openvino", "detect openvino"])
def test_nothing_on_screen_is_a_warning_or_a_failure(folder: Path, name: str) -> None:
    output = json.loads((folder / "output.json").read_text(encoding="utf-8"))[name]
    assert not re.findall(r"Traceback|\w+Warning\b|requirements:|failure", output), output


@pytest.mark.parametrize("name", EXPORTS)
def test_each_format_is_one_file_or_folder_and_onnx_holds_its_weights(folder: Path, name: str) -> None:
    needed = {"best.pt", "best.onnx", *(FILES[form] for form in EXPORTS[name][0])}
    assert {path.name for path in (folder / name).iterdir()} == needed
    model = onnx.load(folder / name / "best.onnx", load_external_data=False)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    parameters = sum(p.numel() for p in torch.load(folder / name / "best.pt", weights_only=False)["model"].parameters())
    assert (folder / name / "best.onnx").stat().st_size > 3.9 * parameters  # float32, less what fusing saves


def onnx_shapes(file: Path) -> dict[str, list[int | str]]:
    graph = onnx.load(file).graph
    values = [*graph.input, *graph.output]
    return {value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in values}


def test_onnx_names_its_outputs(folder: Path) -> None:
    boxes = 3 * (8**2 + 4**2 + 2**2)
    fixed = {"images": [1, 3, SIZE, SIZE], "output0": [1, boxes, 7]}
    assert onnx_shapes(folder / "joint" / "best.onnx") == {**fixed, "classification": [1, 3]}
    assert onnx_shapes(folder / "plain" / "best.onnx") == fixed
    for name in ("dynamic", "simplified"):
        shapes = onnx_shapes(folder / name / "best.onnx")
        assert list(shapes) == ["images", "output0", "classification"]
        assert shapes["images"] == ["batch", 3, "height", "width"]
        assert shapes["output0"][:2] == ["batch", "anchors"] and shapes["classification"] == ["batch", 3]


@pytest.mark.parametrize("name", ["joint", "dynamic", "plain"])
def test_openvino_names_its_outputs(folder: Path, name: str) -> None:
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(folder / name / FILES["openvino"] / "best.xml")
    assert [output.any_name for output in model.outputs] == ["output0", "classification"][: 1 if name == "plain" else 2]
    assert model.inputs[0].partial_shape.is_dynamic == (name == "dynamic")


@pytest.mark.parametrize(("name", "form"), EVERY)
def test_class_names_of_both_tasks_are_in_the_metadata(folder: Path, name: str, form: str) -> None:
    expected = {key: value for key, value in METADATA.items() if name != "plain" or key not in OF_JOINT_MODELS}
    file = folder / name / FILES[form]
    if form == "onnx":
        found = {entry.key: entry.value for entry in onnx.load(file).metadata_props if not entry.key.startswith("onnxsim.")}
        assert found == {k: json.dumps(v) if k == "classification_names" else str(v) for k, v in expected.items()}
    elif form == "openvino":
        assert yaml.safe_load((file / "best.yaml").read_text(encoding="utf-8")) == expected
    else:
        extra = {"config.txt": ""}
        torch.jit.load(file, _extra_files=extra)
        assert json.loads(extra["config.txt"]) == json.loads(json.dumps({**expected, "shape": [1, 3, SIZE, SIZE]}))


@pytest.mark.parametrize(("name", "form"), [pair for pair in EVERY if pair[0] != "plain"])
def test_both_outputs_agree_with_pytorch(folder: Path, name: str, form: str) -> None:
    images = pictures(folder)
    boxes, probabilities = backend(folder / exported_from(name) / "best.pt")(images)
    found_boxes, found_probabilities = backend(folder / name / FILES[form])(images)
    np.testing.assert_allclose(found_boxes, boxes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found_probabilities, probabilities, rtol=0, atol=1e-4)
    assert probabilities.std(0).max() > 0.01  # the images differ in what is compared


DYNAMIC = [pair for pair in EVERY if pair[0] in ("dynamic", "simplified", "both_dynamic")]


@pytest.mark.parametrize(("name", "form"), DYNAMIC)
def test_a_dynamic_export_takes_any_batch_and_size(folder: Path, name: str, form: str) -> None:
    model = JointBackend(str(folder / name / FILES[form]))
    reference = JointBackend(str(folder / exported_from(name) / "best.pt"))
    images = pictures(folder, 96)[:3, :, :64]
    with torch.no_grad():
        boxes, probabilities = model(images)
        expected_boxes, expected_probabilities = reference(images)
    np.testing.assert_allclose(boxes, expected_boxes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(probabilities, expected_probabilities, rtol=0, atol=1e-4)
    assert probabilities.shape == (3, 3)
    assert (model.fixed_batch, model.fixed_size, model.usual_size) == (None, None, (SIZE, SIZE))


@pytest.mark.parametrize(("name", "form"), [pair for pair in EVERY if pair not in DYNAMIC])
def test_any_number_of_images_is_taken_at_a_time_and_the_size_is_known(folder: Path, name: str, form: str) -> None:
    model = JointBackend(str(folder / name / FILES[form]))
    takes_any = form == "torchscript" and name != "plain"
    assert model.fixed_size == model.usual_size == (SIZE, SIZE)
    assert model.fixed_batch == (None if takes_any else 4 if name == "four" else 1)
    images = pictures(folder)[:5]
    alone, together = [model(image[None]) for image in images], model(images)
    for index, found in enumerate(together if name != "plain" else [together]):
        expected = torch.cat([one if name == "plain" else one[index] for one in alone])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["onnx", "torchscript", "openvino"])
def test_precision_is_that_of_the_file(folder: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    model = JointBackend(str(folder / "guided" / FILES[form]), fp16=True)
    assert not model.fp16 and "--half has no effect" in caplog.text
    assert model(pictures(folder)[:1])[1].shape == (1, 3)


def test_onnx_runtime_alone_gives_the_named_outputs(folder: Path) -> None:
    session = onnxruntime.InferenceSession(folder / "joint" / "best.onnx", providers=["CPUExecutionProvider"])
    images = pictures(folder)
    boxes, probabilities = session.run(["output0", "classification"], {"images": images[:1].numpy()})
    expected_boxes, expected_probabilities = backend(folder / "joint" / "best.pt")(images[:1])
    np.testing.assert_allclose(boxes, expected_boxes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(probabilities, expected_probabilities, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["joint", "both_dynamic", "plain"])
@pytest.mark.parametrize("wanted", [Suppression(), Suppression(1e-5, 0.6, 20, True), Suppression(1.0)])
def test_boxes_after_nms_are_upstreams(folder: Path, tmp_path: Path, name: str, wanted: Suppression) -> None:
    suppress(folder / name / "best.onnx", tmp_path / "nms.onnx", wanted)
    before, after = (onnxruntime.InferenceSession(file) for file in (folder / name / "best.onnx", tmp_path / "nms.onnx"))
    outputs = ["boxes", *([] if name == "plain" else ["classification"])]
    assert [output.name for output in after.get_outputs()] == outputs
    assert after.get_outputs()[0].shape == ["batch" if "dynamic" in name else 1, wanted.max_det, 6]
    counts = []
    for images in pictures(folder).split(8 if "dynamic" in name else 1):
        predictions, *told = before.run(None, {"images": images.numpy()})
        boxes, *still_told = after.run(outputs, {"images": images.numpy()})
        expected = upstream("utils.general").non_max_suppression(
            torch.from_numpy(predictions), wanted.conf_thres, wanted.iou_thres, None, wanted.agnostic, max_det=wanted.max_det
        )
        for found, rows in zip(boxes, expected, strict=True):
            np.testing.assert_array_equal(found[: len(rows)], rows)
            assert not found[len(rows) :].any()
            counts.append(len(rows))
        np.testing.assert_allclose(still_told, told, atol=1e-6)
    assert len(counts) == 8 and (max(counts) == 0 if wanted.conf_thres == 1 else 5 < max(counts) <= wanted.max_det)


def test_the_command_writes_a_file_that_ends_in_boxes_and_ours_and_upstreams_scripts_refuse_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copy(folder / "guided" / "best.pt", tmp_path)
    export(["--weights", str(tmp_path / "best.pt"), "--nms", "--imgsz", str(SIZE), "--max-det", "9", "--iou-thres", "0.5"])
    made = tmp_path / "best_nms.onnx"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.onnx", "best.pt", "best_nms.onnx"]
    assert f"{made}: `boxes` (B, 9, 6)" in capsys.readouterr().out
    assert onnx_shapes(made) == {"images": [1, 3, SIZE, SIZE], "boxes": [1, 9, 6], "classification": [1, 3]}
    metadata = {entry.key: entry.value for entry in onnx.load(made).metadata_props}
    assert json.loads(metadata.pop("nms")) == {"conf_thres": 0.25, "iou_thres": 0.5, "max_det": 9, "agnostic": False}
    assert metadata.keys() == METADATA.keys()
    for dnn in (False, True):
        with pytest.raises(ValueError, match=r"best_nms\.onnx ends in boxes after NMS"):
            upstream("models.common").DetectMultiBackend(str(made), dnn=dnn)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--weights is missing"),
        (["--weights", "nowhere.pt"], "nowhere.pt cannot be read"),
        (["--weights", "joint/best.onnx"], "best.onnx"),
        (["--weights", "joint/best.pt", "--conf-thres", "25"], "--conf-thres must be from 0 to 1, found 25"),
        (["--weights", "joint/best.pt", "--max-det", "0"], "--max-det must be at least 1"),
        (["--weights", "joint/best.pt", "--nms", "--opset", "11"], "--nms needs --opset 12 or later"),
        (["--weights", "joint/best.pt", "--include", "onxx"], "Invalid --include ['onxx']"),
        (["--weights", "joint/best.pt", "--nms", "--include", "openvino"], "--nms is for ONNX: add onnx to --include"),
    ],
)
def test_an_export_that_cannot_be_is_one_line(folder: Path, monkeypatch, capsys, flags: list[str], message: str) -> None:
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("best*")}
    with pytest.raises(SystemExit) as ended:
        export(flags)
    error = capsys.readouterr().err
    assert ended.value.code in (1, 2) and message in error.splitlines()[-1] and "Traceback" not in error
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("best*")} == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has other signals")
def test_a_signal_ends_nothing_after_two_models_of_openvino(folder: Path) -> None:
    """Each core of OpenVINO puts a signal stack in the last one's place, and that one back, which is gone here (patches/0020)."""
    first, second = (JointBackend(str(folder / name / FILES["openvino"])) for name in ("joint", "dynamic"))
    del first
    gc.collect()  # a model refers to itself
    del second
    gc.collect()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.raise_signal(signal.SIGUSR1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("form", EXPORTS["plain"][0])
def test_a_plain_model_has_no_class_of_the_image(folder: Path, form: str) -> None:
    model = JointBackend(str(folder / "plain" / FILES[form]))
    assert model.classification_names == {}
    assert isinstance(model(pictures(folder)[:1]), torch.Tensor)


@pytest.mark.parametrize(
    ("name", "form", "more", "batch"),
    [
        ("four", "onnx", [], 4),
        ("dynamic", "onnx", ["--half"], 1),
        ("guided", "torchscript", ["--batch-size", "3"], 3),
        ("guided", "openvino", ["--half", "--imgsz", str(SIZE)], 1),
    ],
)
def test_val_takes_size_batch_and_precision_from_the_file(folder, tmp_path, name, form, more, batch) -> None:
    common = ["--data", str(folder / "data" / "joint.yaml"), "--workers", "0", "--bootstrap", "0", "--project", str(tmp_path)]
    val([*common, "--name", "val", "--weights", str(folder / name / FILES[form]), *more])
    found = json.loads((tmp_path / "val" / "joint_metrics.json").read_text())
    assert (found["imgsz"], found["batch_size"], found["half"]) == (SIZE, batch, False)
    assert found["images"] == 8 and found["detection"]["mAP50"] > 0


def test_val_at_another_size_than_the_files_is_one_error(folder, tmp_path, capsys) -> None:
    common = ["--data", str(folder / "data" / "joint.yaml"), "--workers", "0", "--project", str(tmp_path), "--name", "val"]
    with pytest.raises(SystemExit, match="1"):
        val([*common, "--weights", str(folder / "joint" / "best.onnx"), "--imgsz", "96"])
    assert "--imgsz is 96, but the weights were exported for 64 x 64" in capsys.readouterr().err
    assert not (tmp_path / "val").exists()


def test_upstreams_val_gives_the_same_metrics_for_every_format(folder: Path) -> None:
    output = json.loads((folder / "output.json").read_text(encoding="utf-8"))
    line = r"^\s+all\s+8\s+16((?:\s+[\d.e-]+){4})$"
    found = {form: re.findall(line, output[f"val {form}"], re.MULTILINE) for form in FILES if form != "pt"}
    figures = {form: [float(figure) for line in lines for figure in line.split()] for form, lines in found.items()}
    assert len(figures["torchscript"]) == 4, output["val torchscript"]
    for form, values in figures.items():
        assert values == pytest.approx(figures["torchscript"], abs=1e-3), form


def test_upstreams_detect_finds_the_same_boxes_in_every_format(folder: Path) -> None:
    def boxes(form: str) -> dict[str, np.ndarray]:
        run_folder = folder / "runs" / f"detect_{form}"
        assert len(list(run_folder.glob("*.jpg"))) == 8
        return {file.name: np.loadtxt(file, ndmin=2) for file in (run_folder / "labels").glob("*.txt")}

    expected = boxes("pt")
    assert sum(map(len, expected.values())) > 100
    pixel = 1.01 / 96  # what upstream rounds to may fall to either side; so may the order of equal confidences
    tolerance = np.array([0, pixel, pixel, pixel, pixel, 1e-4]) + 1e-9  # class, box, confidence
    for form in FILES:
        found = boxes(form)
        assert found.keys() == expected.keys()
        for name, lines in expected.items():
            same = (np.abs(found[name][:, None] - lines[None]) <= tolerance).all(2)
            assert len(found[name]) == len(lines) and same.any(0).all() and same.any(1).all(), (form, name)


def test_opencvs_own_reader_gives_both_outputs_the_boxes_first(folder: Path) -> None:
    """Version 4 gives the class first, and only it unless asked for more."""
    images = pictures(folder)[:1]
    model = upstream("models.common").DetectMultiBackend(str(folder / "joint" / "best.onnx"), dnn=True)
    boxes, probabilities = backend(folder / "joint" / "best.pt")(images)
    found_boxes, found_probabilities = model(images)
    np.testing.assert_allclose(found_boxes, boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found_probabilities, probabilities, rtol=0, atol=1e-4)


def test_formats_that_lose_the_class_of_the_image_are_refused_and_a_failure_is_the_exit_status(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", [])  # put back at the end
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "joint" / "best.pt", tmp_path)
    common = ["--weights", str(tmp_path / "best.pt"), "--imgsz", str(SIZE), "--include"]
    export = str(find_checkout() / "export.py")
    assert not run_script(export, [*common, "torchscript", "saved_model"])
    assert caplog.text.count("its formats cannot hold the class of the image") == 1
    shutil.copy(folder / "joint" / "best.onnx", tmp_path)  # of an earlier export: nothing to make OpenVINO's file from
    assert not run_script(export, [*common, "openvino", "--opset", "999"])
    assert sorted(path.name for path in tmp_path.glob("best*")) == ["best.onnx", "best.pt", "best.torchscript"]
