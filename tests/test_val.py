"""`val`: upstream's detection figures to the last digit, the classification's beside them, intervals of both, its files."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from joint_data import IMAGE_CLASSES, write_joint_dataset
from PIL import Image
from upstream_data import CLASS_NAMES

from gradnorm_plugin.data.dataset import create_joint_dataloader
from gradnorm_plugin.evaluation.command import main, parse_options, upstream_parser
from gradnorm_plugin.evaluation.intervals import Bootstrap, Predictions, Resampler
from gradnorm_plugin.evaluation.plots import choose_examples
from gradnorm_plugin.evaluation.recording import Recording, validate
from gradnorm_plugin.labels import read_label_file
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.outputs import class_output
from gradnorm_plugin.outputs.classes import classification_metrics
from gradnorm_plugin.run_folder import DETECTION_FIGURES, EXPLAINED_PICTURES
from gradnorm_plugin.upstream.gateway import swapped, upstream

SIZE = 64


def save(model: torch.nn.Module, file: Path) -> Path:
    """A checkpoint as upstream's training leaves it."""
    torch.save({"model": model.half(), "ema": None, "optimizer": None, "epoch": -1}, file)
    return file


def make_model(kind: type, **more: Any) -> torch.nn.Module:
    """YOLOv5n from scratch that is sure of an object everywhere, so that some of its boxes hit."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = kind(upstream("utils.general").check_yaml("yolov5n.yaml"), nc=len(CLASS_NAMES), **more)
    model.names, model.nc = CLASS_NAMES, len(CLASS_NAMES)  # as training sets them
    for layer in model.model[-1].m:
        layer.bias.data.view(3, -1)[:, 4:] += 5
    return model.eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 validation images, the last without a class."""
    return write_joint_dataset(tmp_path_factory.mktemp("joint"), images=24, size=SIZE)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(
        make_model(JointDetectionModel, outputs=(class_output(IMAGE_CLASSES),)), tmp_path_factory.mktemp("w") / "joint.pt"
    )


@pytest.fixture(autouse=True)
def empty_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib takes longer to write a run's pictures than all the rest: they are drawn in the fixture `done` alone."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, file, **_: Path(file).touch())


def flags(data: Path, weights: Path, folder: Path, *more: str) -> list[str]:
    common = ["--data", str(data), "--weights", str(weights), "--imgsz", str(SIZE), "--batch-size", "5", "--workers", "0"]
    return [*common, "--project", str(folder), "--name", "val", "--bootstrap", "20", *more]


def figures(folder: Path) -> dict[str, Any]:
    """What a run wrote; a NaN in it is an error."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"joint_metrics.json holds {constant}")

    return json.loads((folder / "val/joint_metrics.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def done(data: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that writes everything."""
    folder = tmp_path_factory.mktemp("runs")
    main(flags(data, weights, folder, "--save-txt", "--save-json", "--device", "auto"))
    return folder


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"task": "train", "iou_thres": 0.3},
        {"augment": True, "max_det": 100},
        {"single_cls": True, "conf_thres": 0.2},
        {"save_hybrid": True},
    ],
    ids=lambda more: "-".join(more) or "plain",
)
def test_detection_is_upstreams_to_the_last_digit(data, weights, tmp_path, more):
    """Promise 5: P, R, mAP50, mAP50-95 over all and by class."""
    options = [
        f"--{name.replace('_', '-')}" if value is True else f"--{name.replace('_', '-')}={value}" for name, value in more.items()
    ]
    main(flags(data, weights, tmp_path, *options))
    options = {"task": "val", **more, "save_txt": more.get("save_hybrid", False)}
    captured = {}
    count = upstream("val").ap_per_class

    def keep(*args: Any, **kwargs: Any) -> Any:
        captured["by class"] = count(*args, **kwargs)
        return captured["by class"]

    with swapped(upstream("val"), ap_per_class=keep):
        expected, maps, _ = upstream("val").run(
            data, str(weights), 5, SIZE, workers=0, project=tmp_path, name="upstream", half=False, **options
        )
    found = figures(tmp_path)["detection"]
    assert expected[2] > 0, "the model hits nothing, so there is nothing to compare"
    assert (found["precision"], found["recall"], found["mAP50"], found["mAP50-95"]) == expected[:4]
    _, _, precision, recall, f1, ap, classes = captured["by class"]
    assert [row["name"] for row in found["classes"]] == (["item"] if "single_cls" in more else list(CLASS_NAMES.values()))
    for index, name, values in (
        (0, "precision", precision), (1, "recall", recall), (2, "F1", f1), (3, "mAP50", ap[:, 0]), (4, "mAP50-95", ap.mean(1))
    ):  # fmt: skip
        assert [found["classes"][c][name] for c in classes] == values.tolist(), (index, name)
    assert [found["classes"][c]["mAP50-95"] for c in classes] == maps.tolist()


def test_the_precision_is_noted_and_moves_the_figures_a_little(data, weights, done, tmp_path):
    main(flags(data, weights, tmp_path, "--precision", "bfloat16"))
    exact, rounded = figures(done), figures(tmp_path)
    assert (exact["precision"], rounded["precision"]) == ("float32", "bfloat16")
    for name in ("precision", "recall", "mAP50", "mAP50-95"):
        assert rounded["detection"][name] == pytest.approx(exact["detection"][name], abs=0.02)
    assert rounded["classification"]["loss"] == pytest.approx(exact["classification"]["loss"], rel=0.02)


def test_classification_is_that_of_the_same_images(data, weights, done):
    model = torch.load(weights, weights_only=False)["model"].float().fuse().eval()
    loader, dataset = create_joint_dataloader(
        str(data.parent / "images/val"), SIZE, 5, 32, outputs=(class_output(IMAGE_CLASSES),), rect=True, pad=0.5, workers=0
    )
    with torch.no_grad():
        logits = torch.cat([model(images.float() / 255)[1][1] for images, *_ in loader])
    expected = classification_metrics(logits.softmax(1).numpy(), dataset.image_classes)
    found = figures(done)
    assert found["images"] == 12 and found["classification"]["images"] == expected.images == 11
    assert found["classification"]["confusion"] == expected.confusion.tolist()
    pairs = (("accuracy", "accuracy"), ("balanced_accuracy", "balanced_accuracy"), ("macro_F1", "macro_f1"), ("loss", "loss"))
    for name, attribute in pairs:
        assert found["classification"][name] == pytest.approx(getattr(expected, attribute), rel=1e-6), name
    assert found["classification"]["calibration_error"] == pytest.approx(expected.calibration.error, rel=1e-6)
    assert [row["support"] for row in found["classification"]["classes"]] == expected.confusion.sum(1).tolist()


def validate_as_training(data: Path, weights: Path, **options: Any) -> tuple[Any, Recording]:
    model = torch.load(weights, weights_only=False)["model"].float().fuse().eval()
    loader, _ = create_joint_dataloader(
        str(data.parent / "images/val"), SIZE, 5, 32, outputs=(class_output(IMAGE_CLASSES),), rect=True, pad=0.5, workers=0
    )
    description = upstream("utils.general").check_dataset(str(data))
    options = {"imgsz": SIZE, "half": False, "model": model, "dataloader": loader, "plots": False, **options}
    results, recording = validate(description, **options)
    assert not model.classification_head._forward_hooks
    return results, recording


def test_in_training_the_figures_are_those_of_the_command(data, weights, done):
    results, recording = validate_as_training(data, weights)
    found = figures(done)
    assert recording.detection().headlines() == {name: found["detection"][name] for name in DETECTION_FIGURES}
    assert results[0][:4] == tuple(found["detection"][name] for name in DETECTION_FIGURES if name != "F1")
    assert recording.figures(recording.outputs[0])["loss"] == found["classification"]["loss"]


def test_predictions_are_noted_with_their_images(data, weights, tmp_path):
    """The bootstrap counts them by image; at these thresholds the images have different numbers of them."""
    thresholds = {"conf_thres": 0.3, "iou_thres": 0.3}
    main(flags(data, weights, tmp_path, "--conf-thres", "0.3", "--iou-thres", "0.3", "--save-json", "--bootstrap", "0"))
    _, recording = validate_as_training(data, weights, **thresholds)
    noted = recording.predictions()
    by_image: dict[int, list[float]] = {}
    for row in json.loads((tmp_path / "val/joint_predictions.json").read_text()):  # upstream's, with the image's name
        by_image.setdefault(row["image_id"], []).append(row["score"])
    assert len({len(scores) for scores in by_image.values()}) > 1
    for index, file in enumerate(recording.files):
        scores = noted.confidence[noted.images == index]
        assert scores == pytest.approx(by_image.get(int(Path(file).stem), []), abs=1e-5)
        label = read_label_file(data.parent / "labels/val" / f"{Path(file).stem}.txt", len(CLASS_NAMES), len(IMAGE_CLASSES))
        assert sorted(noted.box_classes[noted.box_images == index]) == sorted(box.class_index for box in label.boxes)


def test_what_is_written(done, weights):
    folder, found = done / "val", figures(done)
    for picture in ("confusion_matrix.png", "classification_confusion_matrix.png", "classification_reliability.png"):
        assert (folder / picture).stat().st_size > 10_000
    explained = [Image.open(folder / name) for name in EXPLAINED_PICTURES.values() if (folder / name).is_file()]
    assert len(explained) >= 2 and all(picture.width > 2 * SIZE and picture.height > SIZE for picture in explained)
    assert found["weights"] == str(weights) and found["task"] == "val"
    assert found["bootstrap"] == {"resamples": 20, "level": 0.95, "seed": 0}
    assert set(found["detection"]["intervals"]) == set(DETECTION_FIGURES)
    assert set(found["classification"]["intervals"]) == {"accuracy", "balanced_accuracy", "macro_F1"}
    for task in ("detection", "classification"):
        for name, (low, high) in found[task]["intervals"].items():
            assert 0 <= low <= high <= 1, name
    assert not [file for file in folder.rglob("*") if "partial" in file.name or file.name.endswith(".tmp")]


def test_the_explained_images_are_the_best_the_worst_right_and_the_worst_wrong_one():
    answers = np.array([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1], [0.55, 0.45], [0.7, 0.3]], np.float32)
    output, truth = class_output(["a", "b"]), np.array([0, 0, 0, 0, 1])
    assert choose_examples(output, answers, truth) == {"best": 2, "worst": 3, "wrong": 1}
    assert choose_examples(output, answers[2:3], truth[2:3]) == {"best": 0}
    assert choose_examples(output, answers[1:2], truth[1:2]) == {"wrong": 0}
    assert choose_examples(output, answers[:0], truth[:0]) == {}


@pytest.mark.parametrize(("flag", "other"), [("--save-json", "07.jpg"), ("--save-txt", "7.png")])
def test_predictions_of_two_images_under_one_name_are_refused(flag, other, weights, tmp_path, capsys):
    data = write_joint_dataset(tmp_path, images=4, size=SIZE)
    for old, new in (("0.jpg", "7.jpg"), ("1.jpg", other)):
        (tmp_path / "images/val" / old).rename(tmp_path / "images/val" / new)
    with pytest.raises(SystemExit, match="1"):
        main(flags(data, weights, tmp_path / "out", flag))
    error = capsys.readouterr().err
    assert f"ERROR: {flag}: " in error and "; rename one image" in error and not (tmp_path / "out").exists()


def test_save_txt_is_read_back(done, data):
    labels = sorted((done / "val/labels").glob("*.txt"))
    assert [file.stem for file in labels] == sorted(file.stem for file in (data.parent / "images/val").iterdir())
    predicted = {row["file"]: row["predicted"] for row in json.loads((done / "val/classification_predictions.json").read_text())}
    by_stem = {Path(file).stem: name for file, name in predicted.items()}
    boxes = 0
    for file in labels:
        record = read_label_file(file, len(CLASS_NAMES), len(IMAGE_CLASSES))
        assert IMAGE_CLASSES[record.image_class] == by_stem[file.stem]
        boxes += len(record.boxes)
    upstreams = json.loads((done / "val/joint_predictions.json").read_text())
    assert len(upstreams) >= boxes > 0.9 * len(upstreams)


def test_save_json_has_every_image(done):
    rows = json.loads((done / "val/classification_predictions.json").read_text())
    assert len(rows) == 12 and sum(row["class"] is None for row in rows) == 1
    for row in rows:
        assert list(row["probabilities"]) == list(IMAGE_CLASSES.values())
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(row["probabilities"], key=row["probabilities"].get)
        assert row["image_id"] == int(Path(row["file"]).stem)
    found = figures(done)["classification"]
    assert sum(row["class"] == row["predicted"] for row in rows) / 11 == found["accuracy"]


def test_a_second_run_into_the_folder_leaves_no_line_of_the_first(data, weights, done):
    """Upstream appends to label files that are there."""
    before = {file: file.read_text() for file in (done / "val/labels").glob("*.txt")}
    main(flags(data, weights, done, "--save-txt", "--exist-ok"))
    assert before == {file: file.read_text() for file in (done / "val/labels").glob("*.txt")}


def test_save_conf_keeps_upstreams_lines(data, weights, tmp_path):
    main(flags(data, weights, tmp_path, "--save-txt", "--save-conf", "--bootstrap", "0"))
    for file in (tmp_path / "val/labels").glob("*.txt"):
        *boxes, last = (line.split() for line in file.read_text().splitlines())
        assert boxes and all(len(box) == 6 and 0 < float(box[5]) <= 1 for box in boxes)
        assert sorted(last) == ["0", "0", "1"]
    found = figures(tmp_path)
    assert found["bootstrap"] is None and found["detection"]["intervals"] == found["classification"]["intervals"] == {}


def test_save_hybrid_keeps_the_true_class(data, weights, tmp_path):
    main(flags(data, weights, tmp_path, "--save-hybrid", "--bootstrap", "0"))
    same = 0
    for file in (data.parent / "labels/val").glob("*.txt"):
        true = read_label_file(file, None, 3).image_class
        same += true == read_label_file(tmp_path / "val/labels" / file.name, None, 3).image_class
    assert same == 11


def test_screen(data, weights, tmp_path, caplog):
    main(flags(data, weights, tmp_path))
    lines = [record.getMessage() for record in caplog.records]
    head = next(index for index, line in enumerate(lines) if "Image class" in line)
    assert lines[head].split() == ["Image", "class", "Images", "Predicted", "P", "R", "F1", "Accuracy"]
    assert [line.split()[0] for line in lines[head + 1 : head + 5]] == ["all", *IMAGE_CLASSES.values()]
    found = figures(tmp_path)
    macro = [found["classification"][name] for name in ("balanced_accuracy", "macro_F1", "accuracy")]
    assert lines[head + 1].split()[1:3] == ["11", "11"] and lines[head + 1].split()[4:] == [f"{value:.3g}" for value in macro]
    assert "1 image without a class left out" in lines[head + 5] and "calibration error" in lines[head + 5]
    (line,) = [line for line in lines if line.split()[:1] == ["mAP50"]]
    assert line.split()[1:] == [f"{v:.3g}" for v in (found["detection"]["mAP50"], *found["detection"]["intervals"]["mAP50"])]
    columns = [len(line) - len(line.lstrip()) + len(line.split()[0]) for line in lines[head + 1 : head + 5]]
    assert columns == [22] * 4, "names end where upstream's do"


def test_a_split_without_classes_has_detection_alone(data, weights, tmp_path, caplog):
    unlabelled = write_joint_dataset(tmp_path / "unlabelled", images=8, size=SIZE, unlabelled=8)
    main(flags(unlabelled, weights, tmp_path))
    found = figures(tmp_path)
    assert found["classification"]["images"] == 0 and found["classification"]["accuracy"] is None
    assert set(found["classification"]["intervals"].values()) == {None}
    assert found["detection"]["mAP50"] is not None and found["detection"]["intervals"]["mAP50"]
    assert "no image of this split has a class" in caplog.text
    assert not (tmp_path / "val/classification_reliability.png").exists()


def test_a_split_without_boxes_has_classification_alone(data, weights, tmp_path):
    folder = tmp_path / "bare"
    bare = write_joint_dataset(folder, images=8, size=SIZE)
    for file in (folder / "labels/val").glob("*.txt"):
        lines = file.read_text().splitlines()
        file.write_text("\n".join(line for line in lines if len(line.split()) == 3) + "\n")
    main(flags(bare, weights, tmp_path))
    found = figures(tmp_path)
    assert found["classification"]["images"] == 3 and found["classification"]["intervals"]["accuracy"]
    assert all(found["detection"][name] is None for name in DETECTION_FIGURES)
    assert all(row["instances"] == 0 and row["mAP50"] is None for row in found["detection"]["classes"])


def with_options(weights: Path, file: Path, **options: Any) -> Path:
    """The same checkpoint as a training with these flags leaves it."""
    torch.save({**torch.load(weights, weights_only=False), "opt": options}, file)
    return file


@pytest.mark.parametrize(
    ("options", "more", "size", "why"),
    [
        ({"imgsz": 96}, [], 96, "Image size: 96 pixels; the weights were trained at 96"),
        ({"imgsz": 96}, ["--imgsz", "64"], 64, "Image size: 64 pixels; the weights were trained at 96"),
        ({"imgsz": "large"}, ["--imgsz", "64"], 64, "the weights do not say"),
    ],
)
def test_the_size_is_that_of_training_and_what_figures_depend_on_is_noted(
    data, weights, tmp_path, caplog, options, more, size, why
):
    trained = with_options(weights, tmp_path / "trained.pt", **options)
    without_size = [flag for flag in flags(data, trained, tmp_path) if flag not in ("--imgsz", str(SIZE))]
    main([*without_size, *more, "--iou-thres", "0.5"])
    found = figures(tmp_path)
    assert found["imgsz"] == size and why in caplog.text
    assert (found["data"], found["batch_size"], found["iou_thres"], found["conf_thres"]) == (str(data), 5, 0.5, 0.001)
    assert found["versions"]["torch"] == torch.__version__


def test_the_data_are_those_of_training_and_a_checkpoint_is_read_once(data, weights, tmp_path, capsys, monkeypatch):
    trust, read = upstream("utils.trust"), []
    load_checkpoint = trust.load_checkpoint
    monkeypatch.setattr(trust, "load_checkpoint", lambda file, *more: read.append(file) or load_checkpoint(file, *more))
    trained = with_options(weights, tmp_path / "trained.pt", data=str(data), imgsz=SIZE)
    without_data = ["--weights", str(trained), *flags(data, trained, tmp_path, "--bootstrap", "0")[4:]]
    main(without_data)
    assert figures(tmp_path)["data"] == str(data) and len(read) == 1
    with_options(weights, trained, data=str(tmp_path / "moved.yaml"))
    with pytest.raises(SystemExit, match="1"):
        main([*without_data, "--name", "again"])
    assert (
        f"--data is missing: the weights were trained on {tmp_path / 'moved.yaml'}, which is not here" in capsys.readouterr().err
    )
    assert not (tmp_path / "again").exists()


def test_box_classes_by_other_names_are_a_warning_and_by_other_numbers_an_error(data, weights, tmp_path, caplog, capsys):
    renamed = broken_data(data.parent, {"names": ["rouge", "bleu"]})
    main(flags(renamed, weights, tmp_path))
    assert "finds red, blue, but `names` of the data yaml has rouge, bleu" in caplog.text
    swapped_names = broken_data(data.parent, {"names": ["blue", "red"]})
    with pytest.raises(SystemExit, match="1"):
        main(flags(swapped_names, weights, tmp_path / "swapped"))
    error = capsys.readouterr().err
    assert "finds red, blue, but `names` of the data yaml has blue, red" in error and "has another number" in error
    main(flags(swapped_names, weights, tmp_path / "one", "--single-cls"))  # then the classes do not matter


@pytest.mark.parametrize(("initial", "task"), [([1.0, 0.0], "classification"), ([0.0, 1.0], "detection")])
def test_a_task_that_was_never_trained_has_no_figures(data, weights, tmp_path, caplog, initial, task):
    untrained = with_options(weights, tmp_path / "untrained.pt", balancer="fixed", initial_weights=initial)
    main(flags(data, untrained, tmp_path))
    found, (other,) = figures(tmp_path), {"detection", "classification"} - {task}
    assert found[other]["trained"] and found[other]["intervals"]
    part = found[task]
    assert not part["trained"] and part["intervals"] == {} and "not trained: its weight was 0" in caplog.text
    headlines = ("mAP50", "F1", "confidence") if task == "detection" else ("accuracy", "balanced_accuracy", "loss")
    assert [part[name] for name in headlines] == [None] * 3
    assert all(row["precision"] is None and row["name"] for row in part["classes"])
    assert (tmp_path / "val/classification_reliability.png").exists() == (task == "detection")


def test_no_prediction_is_lost_on_a_slow_machine(data, weights, tmp_path):
    main(flags(data, weights, tmp_path))
    ticks = iter(range(0, 10**9, 60))
    with swapped(upstream("utils.general"), time=SimpleNamespace(time=lambda: next(ticks), strftime=time.strftime)):
        main(flags(data, weights, tmp_path / "slow"))
    assert figures(tmp_path / "slow")["detection"] == figures(tmp_path)["detection"]


def test_speed_works_and_draws_nothing(data, weights, tmp_path, caplog):
    main(flags(data, weights, tmp_path, "--task", "speed"))
    assert figures(tmp_path)["bootstrap"] is None
    assert not list((tmp_path / "val").glob("*.png"))
    assert "Image class" in caplog.text


def random_predictions(seed: int, images: int, predictions: int, boxes: int, num_classes: int = 3) -> Predictions:
    """Hits that grow rarer with the IoU threshold; no more of an image and class than it has boxes, as upstream matches them."""
    rng = np.random.default_rng(seed)
    image, label = rng.integers(0, images, predictions), rng.integers(0, num_classes, predictions)
    box_image, box_label = rng.integers(0, images, boxes), rng.integers(0, num_classes, boxes)
    free = np.zeros((images, num_classes), dtype=int)
    np.add.at(free, (box_image, box_label), 1)
    correct = rng.random(predictions)[:, None] > np.linspace(0.1, 0.9, 10)
    for index in range(predictions):
        correct[index] &= free[image[index], label[index]] > 0
        free[image[index], label[index]] -= correct[index].any()
    confidence = rng.random(predictions).astype(np.float32)
    return Predictions(correct, confidence, label.astype(np.float32), image, box_label.astype(np.float32), box_image)


def repeated(found: Predictions, times: np.ndarray) -> dict[str, float] | None:
    """Upstream's own figures of predictions and boxes written out as often as their images stand."""
    rows = np.repeat(np.arange(len(found.images)), times[found.images])
    boxes = np.repeat(np.arange(len(found.box_images)), times[found.box_images])
    if not len(boxes):
        return None
    arguments = found.correct[rows], found.confidence[rows], found.classes[rows], found.box_classes[boxes]
    _, _, precision, recall, _, ap, _ = upstream("utils.metrics").ap_per_class(*arguments, names={})
    p, r = precision.mean(), recall.mean()
    return dict(zip(DETECTION_FIGURES, (p, r, 2 * p * r / (p + r + 1e-16), ap[:, 0].mean(), ap.mean(1).mean()), strict=True))


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 60), st.integers(1, 25), st.integers(1, 4))
def test_resampled_figures_are_upstreams_on_repeated_data(seed, images, predictions, boxes, num_classes):
    found = random_predictions(seed, images, predictions, boxes, num_classes)
    times = np.random.default_rng(seed + 1).integers(0, 4, images)
    expected = repeated(found, times)
    twice = np.stack([times, np.roll(times, 1)])  # every draw is on its own
    ours = {name: figures[0] for name, figures in Resampler(found)(twice).items()}
    assert {name: figures[0] for name, figures in Resampler(found)(twice[:1]).items()} == pytest.approx(ours, nan_ok=True, abs=0)
    if expected is None:
        assert all(math.isnan(value) for value in ours.values())
    else:
        assert ours == pytest.approx(expected, abs=1e-12)


def test_resampling_once_each_is_the_point_value_bit_for_bit():
    found = random_predictions(5, 40, 3000, 150)
    ours = Resampler(found)(np.ones((1, 40), dtype=np.int64))
    assert {name: figures.item() for name, figures in ours.items()} == repeated(found, np.ones(40, dtype=np.int64))


def share(hits: np.ndarray) -> Any:
    """A measure: the share of hits."""
    return lambda times: {"share": (times * hits).sum(1) / times.sum(1), "never": np.full(len(times), math.nan)}


def test_best_confidence_is_where_upstream_reads_precision_and_recall():
    found = random_predictions(3, images=20, predictions=3000, boxes=200)
    at = Resampler(found).best_confidence(20)
    arguments = found.correct, found.confidence, found.classes, found.box_classes
    _, _, precision, recall, *_ = upstream("utils.metrics").ap_per_class(*arguments, names={})
    for label in range(3):
        kept = (found.classes == label) & (found.confidence >= at)
        hits = found.correct[kept, 0].sum()
        assert recall[label] == pytest.approx(hits / (found.box_classes == label).sum(), abs=0.02)
        assert precision[label] == pytest.approx(hits / kept.sum(), abs=0.02)


def test_bootstrap_is_deterministic_and_as_wide_as_the_theory_says():
    rng = np.random.default_rng(3)
    widths = []
    for images in (100, 1600):
        hits = rng.random(images) < 0.7
        found = Bootstrap(resamples=800).intervals(images, share(hits))
        assert found == Bootstrap(resamples=800).intervals(images, share(hits))
        assert found != Bootstrap(resamples=800, seed=1).intervals(images, share(hits))
        (low, high), point = found[0]["share"], hits.mean()
        assert low < point < high and found[0]["never"] is None
        normal = 2 * 1.96 * math.sqrt(point * (1 - point) / images)
        assert high - low == pytest.approx(normal, rel=0.12)
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


def test_bootstrap_draws_the_same_images_for_both_measures():
    hits = np.random.default_rng(0).random(50) < 0.5
    first, second = Bootstrap(resamples=100).intervals(50, share(hits), share(~hits))
    assert first["share"][0] == pytest.approx(1 - second["share"][1])


def broken_data(folder: Path, change: dict[str, Any]) -> Path:
    description = yaml.safe_load((folder / "joint.yaml").read_text()) | change
    file = folder / f"{abs(hash(str(change)))}.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in description.items() if value is not None}))
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classification_names": None}, "has no `classification_names`"),
        (
            {"classification_names": ["a", "b", "c"]},
            "tells dark, light, grey, but `classification_names` of the data yaml has a, b, c",
        ),
        ({"classification_names": ["light", "dark", "grey"]}, "tells dark, light, grey"),
        ({"names": ["red", "blue", "green"]}, "finds 2 classes of boxes, but `names` of the data yaml has 3"),
        ({"val": "images/none"}, "Dataset not found"),
    ],
    ids=str,
)
def test_data_that_do_not_fit_are_one_error(data, weights, tmp_path, change, message, capsys):
    with pytest.raises(SystemExit, match="1"):
        main(flags(broken_data(data.parent, change), weights, tmp_path))
    error = capsys.readouterr().err
    assert "ERROR: " in error and message in error and "Traceback" not in error
    assert not (tmp_path / "val").exists()


def test_models_that_do_not_fit_are_one_error(data, tmp_path, capsys):
    plain = save(make_model(upstream("models.yolo").DetectionModel), tmp_path / "plain.pt")
    (tmp_path / "junk.pt").write_text("no pickle")
    for file, message in (
        (plain, "has no classification head: it only detects; measure it with yolov5/val.py"),
        (tmp_path / "junk.pt", "junk.pt cannot be loaded: "),
        (tmp_path / "gone.pt", "gone.pt is not there"),
    ):
        with pytest.raises(SystemExit, match="1"):
            main(flags(data, file, tmp_path))
        error = capsys.readouterr().err
        assert "ERROR: --weights" in error and message in error
    assert not (tmp_path / "val").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--data", "nowhere.yaml"], "--data nowhere.yaml: "),
        (["--data", "http://[::1/x.yaml"], "--data http://[::1/x.yaml: Invalid IPv6 URL"),
        (["--task", "test"], "has no `test`"),
    ],
)
def test_files_and_splits_that_are_not_there_are_one_error(data, weights, tmp_path, more, message, capsys):
    with pytest.raises(SystemExit, match="1"):
        main(flags(data, weights, tmp_path, *more))
    assert message in capsys.readouterr().err and not (tmp_path / "val").exists()


def test_bad_labels_are_one_error(weights, tmp_path, capsys):
    broken = write_joint_dataset(tmp_path / "broken", images=4, size=SIZE)
    file = tmp_path / "broken/labels/val/0.txt"
    file.write_text("7 0.5 0.5 0.2 0.2\n1 0 0\n")
    with pytest.raises(SystemExit, match="1"):
        main(flags(broken, weights, tmp_path))
    assert f"{file}:1" in capsys.readouterr().err and not (tmp_path / "val").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--weights is missing"),
        (["--weights", "x.pt", "--task", "valid"], "--task valid: choose one of train, val, test, speed, study"),
        (["--weights", "x.pt", "--bootstrap", "-1"], "--bootstrap and --seed are whole numbers from 0"),
        (["--weights", "x.pt", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["--weights", "x.pt", "--half", "--precision", "bfloat16"], "two precisions: choose one"),
        (["--weights", "x.pt", "--workers", "-1"], "--workers must be at least 0, found -1"),
        (["--weights", "x.pt", "--max-det", "0"], "--max-det must be at least 1"),
        (["--weights", "x.pt", "--dnn"], "--dnn: OpenCV reads no names of the image's classes"),
    ],
    ids=str,
)
def test_wrong_flags_are_one_line(more, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_options(more)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_flags_are_upstreams_and_ours(weights, data):
    options = vars(parse_options(["--weights", str(weights), "--data", str(data), "--device", "auto"]))
    upstreams = {action.dest for action in upstream_parser()._actions} - {"help"}
    assert set(options) == upstreams | {"allow_download", "bootstrap", "seed", "precision"} and len(upstreams) > 20
    assert options["device"] == "" and options["imgsz"] is None and options["task"] == "val"


def test_upstreams_names_are_put_back(done):
    module = upstream("val")
    assert module.run.__module__ == "val" and module.DetectMultiBackend is upstream("models.common").DetectMultiBackend
    assert module.ap_per_class is upstream("utils.metrics").ap_per_class
    assert module.non_max_suppression is upstream("utils.general").non_max_suppression
