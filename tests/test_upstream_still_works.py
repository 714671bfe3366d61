"""Promise 6 of the design: upstream's own scripts run as they did, each task of them, with this package and without it."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from upstream_data import CLASS_NAMES, write_classification_dataset, write_plain_dataset, write_segmentation_dataset

from gradnorm_plugin.upstream.checkout import find_checkout
from gradnorm_plugin.upstream.gateway import upstream

SIZE = 64
TASK_SCRIPTS = [f"{task}/{name}.py" for task in ("classify", "segment") for name in ("train", "val", "predict")]
DRIVER, HUB = (Path(__file__).with_name(name) for name in ("upstream_driver.py", "upstream_hub.py"))
FORMS = {"": ".pt", "torchscript": ".torchscript", "onnx": ".onnx", "openvino": "_openvino_model", "opencv": ".onnx"}
WORKFLOWS = {  # a form that validates need not predict, to save time: both load it in the same way
    "detect": ["train", "resume", "train again", "export", "val opencv"],
    "segment": ["train", "resume", "export", "val openvino", "val opencv", "predict", "predict torchscript", "predict onnx"],
    "classify": ["train", "train again", "train torchvision", "export", *(f"val {form}".strip() for form in FORMS), "predict"],
}


@dataclass(frozen=True)
class Session:
    """What the commands left: their folder, and for each whether it ended well and what it printed."""

    folder: Path
    with_package: bool
    ended_well: dict[str, bool]
    output: dict[str, str]

    @property
    def weights(self) -> Path:
        return self.folder / "runs" / "train" / "weights"

    def check(self, name: str) -> str:
        """The output of a command that must have ended well."""
        assert self.ended_well[name], self.output[name]
        return self.output[name]


@pytest.fixture(scope="module", params=[True, False], ids=["with package", "without package"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("upstream")
    data, best = write_plain_dataset(folder / "data"), folder / "runs" / "train" / "weights" / "best"
    common = ["--imgsz", str(SIZE), "--project", str(folder / "runs")]
    validate = ["--data", str(data), "--workers", "0", *common]
    detect = ["--source", str(folder / "data" / "images" / "val"), "--conf-thres", "0.001", "--save-txt", *common]
    train = ["--data", str(data), "--cfg", "yolov5n.yaml", "--workers", "0", *common]
    plots = ["--noplots"] if request.param else []  # once is enough, they take half of the time
    commands = {
        "train": (
            "train.py",
            [*train, "--weights", "", "--epochs", "1", "--batch-size", "4", "--name", "train", *plots],
        ),
        "val": ("val.py", [*validate, "--weights", f"{best}.pt", "--name", "val"]),
        "detect": ("detect.py", [*detect, "--weights", f"{best}.pt", "--name", "detect"]),
        "export": ("export.py", ["--imgsz", str(SIZE), "--weights", f"{best}.pt", "--include", "onnx", "torchscript"]),
        "val onnx": ("val.py", [*validate, "--weights", f"{best}.onnx", "--batch-size", "1", "--name", "val_onnx"]),
        "detect onnx": ("detect.py", [*detect, "--weights", f"{best}.onnx", "--name", "detect_onnx"]),
        "missing weights": ("train.py", [*train, "--weights", "yolov5s.pt", "--name", "missing"]),
        **{script: (script, None) for script in TASK_SCRIPTS},
    }
    return _run(folder, commands, with_package=request.param)


def _run(folder: Path, commands: dict[str, tuple[str, list[str] | None]], with_package: bool) -> Session:
    checkout = find_checkout()
    steps = [{"name": n, "script": str(checkout / s), "arguments": a} for n, (s, a) in commands.items()]
    (folder / "commands.json").write_text(json.dumps(steps), encoding="utf-8")
    (folder / "config").mkdir()
    arguments = [str(folder / "commands.json"), *(["--without-plugin"] if not with_package else [])]
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(DRIVER.parents[1]),
        "PYTHONUNBUFFERED": "1",
        "YOLOV5_CONFIG_DIR": str(folder / "config"),
    }
    process = subprocess.run(
        [sys.executable, str(DRIVER), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=900,
    )
    parts = re.split(r"^@@ (.+) (ok|failed)$", process.stdout, flags=re.MULTILINE)
    outputs, names, results = parts[0:-1:3], parts[1::3], parts[2::3]
    assert names == list(commands), process.stdout
    ended_well = dict(zip(names, (result == "ok" for result in results), strict=True))
    return Session(folder, with_package, ended_well, dict(zip(names, outputs, strict=True)))


def test_train_leaves_weights_and_results(session: Session) -> None:
    session.check("train")
    with open(session.weights.parent / "results.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file, skipinitialspace=True)
    losses = [float(value) for name, value in row.items() if name.strip().endswith("_loss")]
    assert len(losses) == 6 and all(0 < loss < 10 for loss in losses)
    assert (session.weights / "best.pt").stat().st_size > 1e6


def test_train_draws_every_plot(session: Session) -> None:
    session.check("train")
    plots = {"results.png", "confusion_matrix.png", "labels.jpg", "train_batch0.jpg", "val_batch0_pred.jpg"}
    curves = {f"{name}_curve.png" for name in ("F1", "PR", "P", "R")}
    drawn = {path.name for path in session.weights.parent.iterdir()} & (plots | curves)
    assert drawn == (set() if session.with_package else plots | curves)


@pytest.mark.parametrize("name", ["train", "val", "detect", "export", "val onnx", "detect onnx"])
def test_nothing_on_screen_is_a_warning_or_a_traceback(session: Session, name: str) -> None:
    noise = re.findall(r"Traceback|\w+Warning\b|requirements:|failure", session.check(name))
    assert not noise, session.output[name]


@pytest.mark.parametrize("name", ["val", "val onnx"])
def test_val_reports_every_class(session: Session, name: str) -> None:
    rows = re.findall(r"^\s+(all|red|blue)\s+(\d+)\s+(\d+)((?:\s+[\d.e-]+){4})$", session.check(name), re.MULTILINE)
    assert {row[0]: row[2] for row in rows} == {"all": "8", "red": "4", "blue": "4"}


@pytest.mark.parametrize("name", ["detect", "detect onnx"])
def test_detect_draws_every_image_and_writes_its_boxes(session: Session, name: str) -> None:
    session.check(name)
    folder = session.folder / "runs" / name.replace(" ", "_")
    assert {path.stem for path in folder.glob("*.jpg")} == {"0", "1", "2", "3"}
    for file in (folder / "labels").glob("*.txt"):
        boxes = np.loadtxt(file, ndmin=2)
        assert boxes.shape[1] == 5 and set(boxes[:, 0]) <= set(CLASS_NAMES)


def test_export_writes_one_onnx_file_of_the_opset_asked_for(session: Session) -> None:
    session.check("export")
    assert sorted(path.name for path in session.weights.iterdir()) == [
        "best.onnx",
        "best.pt",
        "best.torchscript",
        "last.pt",
    ]
    model = onnx.load(session.weights / "best.onnx", load_external_data=False)
    assert model.opset_import[0].version == 17
    assert {entry.key: entry.value for entry in model.metadata_props}["names"] == str(CLASS_NAMES)


def test_exported_formats_agree(session: Session) -> None:
    session.check("export")
    images = np.random.default_rng(0).random((1, 3, SIZE, SIZE), dtype=np.float32)
    runtime = onnxruntime.InferenceSession(session.weights / "best.onnx", providers=["CPUExecutionProvider"])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torchscript = torch.jit.load(session.weights / "best.torchscript")(torch.from_numpy(images))[0]
    np.testing.assert_allclose(runtime.run(["output0"], {"images": images})[0], torchscript, rtol=1e-4, atol=1e-4)


def test_weights_that_cannot_be_fetched_are_one_clear_error(session: Session) -> None:
    assert not session.ended_well["missing weights"]
    output = session.output["missing weights"]
    assert output.count("Traceback") == 1
    assert re.search(r"FileNotFoundError: yolov5s\.pt does not exist, and https://\S+ cannot be reached", output)


@pytest.mark.parametrize("script", TASK_SCRIPTS)
def test_other_tasks_import(session: Session, script: str) -> None:
    session.check(script)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """What every task is taken through: train, resume, train on from its weights, validate, predict, export, use its files."""
    folder = tmp_path_factory.mktemp("tasks")
    commands: dict[str, tuple[str, list[str] | None]] = {}
    weights = {task: folder / "runs" / f"{task}-train" / "weights" / "best" for task in ("detect", "segment", "classify")}
    data = {
        "detect": write_plain_dataset(folder / "detect", images=4, size=SIZE),
        "segment": write_segmentation_dataset(folder / "segment", images=4, size=SIZE),
        "classify": write_classification_dataset(folder / "classify"),
    }

    source = {"segment": folder / "segment" / "images" / "val", "classify": folder / "classify" / "val" / "red", "detect": ""}

    def add(task: str, name: str, script: str, *arguments: object) -> None:
        size = "32" if task == "classify" else str(SIZE)
        run = ["--imgsz", size, "--project", str(folder / "runs"), "--name", f"{task}-{name.replace(' ', '-')}"]
        commands[f"{task} {name}"] = (script, [*map(str, arguments), *run])

    for task, scripts in (("detect", ""), ("segment", "segment/"), ("classify", "classify/")):
        best = weights[task]
        train = [f"{scripts}train.py", "--data", data[task], "--workers", 0, "--batch-size", 4, "--epochs"]
        if task == "classify":
            add(task, "train", *train, 1, "--model", f"{weights['detect']}.pt")  # a detector becomes a classifier
            add(task, "train again", *train, 1, "--model", f"{best}.pt", "--cache")
            add(task, "train torchvision", *train, 1, "--model", "mobilenet_v3_small", "--pretrained", "False")
        else:
            cfg = "yolov5n.yaml" if task == "detect" else "yolov5n-seg.yaml"
            options = ["--noplots", "--optimizer", "AdamW", "--image-weights", "--cache", "ram", "--cos-lr"]
            add(task, "train", *train, 2, "--weights", "", "--cfg", cfg, "--save-period", 1, *options)
            commands[f"{task} resume"] = (train[0], ["--resume", str(best.with_name("epoch0.pt"))])
        if task == "detect":
            options = ["--noplots", "--rect", "--freeze", 2, "--single-cls", "--optimizer", "Adam"]
            add(task, "train again", *train, 1, "--weights", f"{best}.pt", *options)
        formats = ["torchscript", "onnx", "openvino"] if task != "detect" else ["onnx"]  # the others are exported above
        size = 32 if task == "classify" else SIZE
        commands[f"{task} export"] = ("export.py", ["--weights", f"{best}.pt", "--imgsz", str(size), "--include", *formats])
        validate = [f"{scripts}val.py", "--data", data[task], "--workers", 0, "--weights"]
        predict = [f"{scripts}predict.py", "--source", source[task], "--save-txt", "--weights"]
        if task == "segment":
            validate[1:1], predict[1:1] = ["--save-txt", "--augment"], ["--conf-thres", 1e-6, "--max-det", 3]
        for name in WORKFLOWS[task]:
            step, _, form = name.partition(" ")
            if step in ("val", "predict"):
                file = f"{best}{FORMS[form]}"
                more = [*(["--dnn"] if form == "opencv" else []), *(["--batch-size", 1] if step == "val" and form else [])]
                add(task, name, *(validate if step == "val" else predict), file, *more)
    picture = folder / "detect" / "images" / "val" / "0.jpg"
    commands["hub"] = (str(HUB), [str(find_checkout()), f"{weights['detect']}.pt", str(picture), str(SIZE)])
    commands["export failure"] = ("export.py", ["--weights", f"{weights['detect']}.pt", "--include", "onnx", "--opset", "999"])
    return _run(folder, commands, with_package=False)


@pytest.mark.parametrize("name", [f"{task} {name}" for task, names in WORKFLOWS.items() for name in names])
def test_a_workflow_ends_well_and_in_silence(tasks: Session, name: str) -> None:
    noise = re.findall(r"Traceback|\w+Warning\b|requirements:|export failure", tasks.check(name))
    assert not noise, tasks.output[name]


@pytest.mark.parametrize(("task", "epochs"), [("detect", [0, 1, 1]), ("segment", [0, 1, 2, 1, 2])])  # segment adds the best
def test_training_resumes_where_it_was(tasks: Session, task: str, epochs: list[int]) -> None:
    assert re.search(r"Resuming training from \S+epoch0.pt from epoch 1 to 2 total epochs", tasks.check(f"{task} resume"))
    with open(tasks.folder / "runs" / f"{task}-train" / "results.csv", encoding="utf-8") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file, skipinitialspace=True)] == epochs


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_every_exported_file_is_as_good(tasks: Session, task: str) -> None:
    names = [name for name in WORKFLOWS[task] if name.startswith("val")]
    found = {name: re.findall(r"^ +all .*$", tasks.check(f"{task} {name}"), re.MULTILINE) for name in names}
    for rows in found.values():
        assert len(rows) == 1 and rows == found["val opencv"]  # which reads no names of classes


def test_predictions_of_classes_and_masks(tasks: Session) -> None:
    for task, lines in ("segment", 3), ("classify", 2):
        for name in filter(re.compile("predict").match, WORKFLOWS[task]):
            tasks.check(f"{task} {name}")
            files = list((tasks.folder / "runs" / f"{task}-{name.replace(' ', '-')}" / "labels").glob("*.txt"))
            assert len(files) == 2 and all(len(file.read_text().splitlines()) == lines for file in files)


def test_validated_boxes_of_masks_are_written_as_boxes(tasks: Session) -> None:
    assert tasks.check("segment val openvino").count("--augment merges no masks") == 1
    files = list((tasks.folder / "runs" / "segment-val-openvino" / "labels").glob("*.txt"))
    assert files and all(np.loadtxt(file, ndmin=2).shape[1] == 5 for file in files)


def test_a_classifier_carries_its_transforms_and_classes(tasks: Session) -> None:
    trust = upstream("utils.trust")
    for name in "train-again", "train-torchvision":
        model = trust.load_checkpoint(tasks.folder / "runs" / f"classify-{name}" / "weights" / "best.pt")["model"].float().eval()
        assert [type(each).__name__ for each in model.transforms.transforms] == ["CenterCrop", "ToTensor", "Normalize"]
        assert model.transforms(np.zeros((40, 50, 3), np.uint8)).shape == (3, 32, 32)
        assert model.names == ["blue", "red"] and model(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_torch_hub_takes_every_kind_of_picture(tasks: Session) -> None:
    lines = re.findall(r"^([\w -]+): pandas tolist print crop show save render$", tasks.check("hub"), re.MULTILINE)
    assert lines == ["path", "Path", "PIL image", "array", "read-only array", "OpenCV", "list"], tasks.output["hub"]


def test_an_export_that_fails_is_no_success(tasks: Session) -> None:
    assert not tasks.ended_well["export failure"] and "export failure" in tasks.output["export failure"]
