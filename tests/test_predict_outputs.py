"""`predict`, `Predictor` and exported files of a model with three image outputs, one of each kind."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from joint_checkpoint import read_images, write_checkpoint
from joint_data import write_joint_dataset
from upstream_data import CLASS_NAMES

from gradnorm_plugin import Prediction, Predictor
from gradnorm_plugin.evaluation.command import main as val
from gradnorm_plugin.labels import read_label_file
from gradnorm_plugin.model.backend import JointBackend
from gradnorm_plugin.model.checkpoint import read_checkpoint
from gradnorm_plugin.outputs import activate, describe_outputs, label_rules, read_outputs
from gradnorm_plugin.predict import PredictError
from gradnorm_plugin.predict.command import main
from gradnorm_plugin.predict.drawing import TAG_COLOUR, Style
from gradnorm_plugin.predict.prediction import Clip
from gradnorm_plugin.predict.result_files import CsvFiles
from gradnorm_plugin.strip import strip
from gradnorm_plugin.upstream.gateway import upstream

os.environ.setdefault("CI", "true")  # openvino reports its uses to its maker, except in CI

SIZE = 64
DESCRIPTIONS = {
    "view": {"classes": ["PSAX", "PLAX", "A4C"]},
    "finding": {"labels": ["effusion", "=calcification"]},
    "ef": {"value": "percent", "range": [0, 100]},
}
OUTPUTS = read_outputs(DESCRIPTIONS)
VIEW, FINDING, EF = OUTPUTS
TEMPERATURE = 1.7
"""What the probabilities of `view` in `three.pt` are calibrated with."""
EXPORTS = {
    ("three", "fixed"): ("onnx", "torchscript", "openvino"),
    ("three", "dynamic"): ("onnx", "openvino"),
    ("guided", "fixed"): ("torchscript",),
    ("guided", "dynamic"): ("onnx", "openvino"),
}
"""What is exported of a checkpoint, each for one size or for any."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of three outputs; `three.pt` and `guided.pt`, exported, and `two.pt` without an output that tells a class."""
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("outputs")
    data = write_joint_dataset(folder / "data", images=8)
    for index, file in enumerate(sorted((folder / "data" / "labels" / "val").glob("*.txt"))):
        file.write_text(f"{'finding: 1 0' if index else ''}\nef: {20 * index}\n{file.read_text()}")
    data.write_text(re.sub(r"classification_names:\n(  .*\n)+", f"image_outputs: {json.dumps(DESCRIPTIONS)}\n", data.read_text()))
    pictures = read_images(folder / "data" / "images" / "val", SIZE)
    for name, outputs, head in (("three", OUTPUTS, "pooled"), ("guided", OUTPUTS, "both"), ("two", (FINDING, EF), "pooled")):
        write_checkpoint(folder / f"{name}.pt", pictures, classification_names=None, outputs=outputs, head=head)
        contents = torch.load(folder / f"{name}.pt", weights_only=False)
        for layer in contents["model"].classification_head.class_layers():  # so that untrained heads tell pictures apart
            layer.weight.data *= 8
        if name == "three":
            contents["model"].temperatures = {"view": TEMPERATURE}
        torch.save(contents, folder / f"{name}.pt")
    for (name, kind), forms in EXPORTS.items():
        weights = folder / f"{name}-{kind}" / "best.pt"
        weights.parent.mkdir()
        shutil.copy(folder / f"{name}.pt", weights)
        upstream("export").run(weights=weights, imgsz=(SIZE, SIZE), include=forms, dynamic=kind == "dynamic")
    return folder


def pictures(folder: Path, size: int = SIZE) -> torch.Tensor:
    return read_images(folder / "data" / "images" / "val", size)


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor(folder / "three.pt", imgsz=SIZE, conf_thres=0.3)


def run(folder: Path, into: Path, *more: str, weights: str = "three.pt", source: Path | None = None) -> Path:
    """Predict the pictures, return the folder of the outputs."""
    source = source or folder / "data" / "images" / "val"
    common = ["--weights", str(folder / weights), "--source", str(source), "--project", str(into), "--name", "run"]
    main([*common, "--imgsz", str(SIZE), "--conf-thres", "0.3", *more])
    return into / "run"


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def expected_answers(file: Path, picture: Path) -> list[np.ndarray]:
    """What the network itself says of one picture, output by output."""
    model = read_checkpoint(file)["model"].float().eval()
    image = cv2.resize(cv2.imread(str(picture)), (SIZE, SIZE))[..., ::-1].transpose(2, 0, 1).copy()
    with torch.no_grad():
        logits = model(torch.from_numpy(image)[None].float() / 255)[1][1]
    logits[:, : VIEW.width] /= TEMPERATURE
    parts = logits[0].split([output.width for output in model.outputs])
    return [output.activate(part[None])[0].numpy() for output, part in zip(model.outputs, parts, strict=True)]


def test_a_prediction_has_what_each_output_says(folder, predictor):
    said = set()
    for picture in sorted((folder / "data" / "images" / "val").iterdir()):
        found = predictor(picture)
        view, finding, ef = expected_answers(folder / "three.pt", picture)
        assert found.outputs["view"]["probabilities"] == pytest.approx(dict(zip(VIEW.names, view, strict=True)), abs=1e-4)
        assert found.outputs["finding"]["probabilities"] == pytest.approx(
            dict(zip(FINDING.names, finding, strict=True)), abs=1e-4
        )
        assert found.outputs["ef"] == {"value": pytest.approx(float(ef[0]), abs=1e-2), "unit": "percent"}
        assert found.image_class.name == found.outputs["view"]["class"] == VIEW.names[int(view.argmax())]
        assert found.image_class.probabilities == found.outputs["view"]["probabilities"]
        said.add(json.dumps(found.outputs))
    assert len(said) == len(list((folder / "data" / "images" / "val").iterdir()))


def test_command_writes_every_output(folder, predictor, tmp_path, caplog):
    out = run(folder, tmp_path, "--save-json", "--save-csv", "--save-txt")
    objects, images = json.loads((out / "predictions.json").read_text(encoding="utf-8")), rows(out / "images.csv")
    columns = ["view", "view_probability", "finding", "finding_effusion", "finding_=calcification", "ef"]
    assert list(images[0]) == ["name", "path", "frame", "width", "height", "boxes", *columns]
    rules = label_rules(OUTPUTS, len(CLASS_NAMES))
    values = []
    for row, image in zip(objects, images, strict=True):
        found = predictor(row["path"])
        assert {"name": row["name"], **found.to_dict()} == row and row["outputs"] == found.outputs
        assert image["view"] == found.image_class.name
        assert image["finding"].lstrip("'") == "; ".join(found.outputs["finding"]["labels"])
        assert float(image["ef"]) == pytest.approx(found.outputs["ef"]["value"], rel=1e-4)
        record = read_label_file(out / "labels" / f"{row['name']}.txt", None, 0, rules)
        assert len(record.boxes) == len(found.boxes) and record.image_class == found.image_class.index
        assert record.named == {"finding": found.answers[1].target, "ef": (found.outputs["ef"]["value"],)}
        values.append(found.outputs["ef"]["value"])
        assert f"; {'; '.join(''.join(answer.say()) for answer in found.answers)}; " in caplog.text
    most = max((row["view"] for row in images), key=[row["view"] for row in images].count)
    assert f"{most} {[row['view'] for row in images].count(most)}" in caplog.text
    assert f"\nef: {np.mean(values):.3g} percent ({min(values):.3g} to {max(values):.3g})" in caplog.text
    drawn = cv2.imread(str(out / Path(objects[0]["path"]).name))
    assert not np.array_equal(drawn, predictor(objects[0]["path"]).image)


def test_without_an_output_that_tells_a_class(folder, tmp_path, caplog):
    out = run(folder, tmp_path, "--save-json", "--save-csv", "--save-txt", weights="two.pt")
    found = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert all(image["image_class"] is None and list(image["outputs"]) == ["finding", "ef"] for image in found)
    assert "view" not in rows(out / "images.csv")[0] and "boxes only" not in caplog.text
    for file in (out / "labels").iterdir():
        record = read_label_file(file, None, 0, label_rules((FINDING, EF)))
        assert record.image_class is None and set(record.named) == {"finding", "ef"}
    assert Predictor(folder / "two.pt").classification_names == {}


def test_each_output_has_a_line_on_the_picture(predictor):
    picture = np.full((300, 400, 3), 200, np.uint8)
    found = predictor(picture)
    one = Prediction(None, None, (300, 400), (), found.image_class, picture)
    three = Prediction(None, None, (300, 400), (), found.image_class, picture, found.answers)
    heights = [(drawn.draw()[:, 0] == TAG_COLOUR).all(1).sum() for drawn in (one, three)]
    assert heights[1] == 3 * heights[0] > 0
    assert np.array_equal(three.draw(Style(labels=False)), picture)
    assert not np.array_equal(three.draw(Style(confidences=False)), three.draw())
    small = Prediction(None, None, (30, 40), (), None, picture[:30, :40], found.answers)
    assert small.draw().shape == (30, 40, 3)


def test_there_is_a_reason_for_each_answer(folder, predictor):
    found = predictor(sorted((folder / "data" / "images" / "val").iterdir())[0])
    why = found.explain()
    labels = found.outputs["finding"]["labels"] or [max(FINDING.names, key=found.outputs["finding"]["probabilities"].get)]
    assert [reason.output for reason in why.reasons] == ["view", *["finding"] * len(labels), "ef"]
    for name, reason in zip(labels, why.reasons[1:-1], strict=True):
        assert reason.text == f"finding: {name} {found.outputs['finding']['probabilities'][name]:.2f}"
    assert not any(reason.regions for reason in why.reasons)
    (only,) = found.explain("ef").reasons
    assert np.array_equal(only.heat, why.reasons[-1].heat) and only.text == f"ef: {found.outputs['ef']['value']:.3g} percent"
    assert not np.array_equal(why.reasons[0].heat, only.heat)
    with pytest.raises(PredictError, match="needs .pt weights: an exported file gives no gradients"):
        Predictor(folder / "three-dynamic" / "best.onnx", imgsz=SIZE)(found.image).explain()


def test_regions_are_the_heads_attention(folder):
    """Those of one object together: no two of one class lie on each other, and no share is lost."""
    predictor = Predictor(folder / "guided.pt", imgsz=SIZE)
    image = cv2.resize(cv2.imread(str(sorted((folder / "data" / "images" / "val").iterdir())[0])), (96, 96))
    model = predictor.backend.model
    scaled = torch.from_numpy(predictor._letterboxed(image))[None].float() / 255
    with torch.no_grad():
        seen = model._run(scaled)
    for reason, index in zip(predictor(image).explain("view", "ef").reasons, (0, 2), strict=True):
        expected = model.heads[index].attend(seen.features, seen.detection[0])
        classes = torch.arange(expected.attention.shape[1]) % len(CLASS_NAMES)
        for kind in range(len(CLASS_NAMES)):
            of_kind = [region for region in reason.regions if region.box.class_index == kind]
            share = expected.attention[0][classes == kind].sum().item()
            assert sum(region.share for region in of_kind) == pytest.approx(share, abs=1e-5)
            corners = torch.tensor([region.box[3:] for region in of_kind])
            overlap = upstream("utils.metrics").box_iou(corners, corners)
            assert (overlap.fill_diagonal_(0) <= 0.45 + 1e-4).all()
            assert max(region.box.confidence for region in of_kind) == pytest.approx(
                expected.scores[0][classes == kind].max().item(), abs=1e-5
            )
        shares = [region.share for region in reason.regions]
        assert shares == sorted(shares, reverse=True)


def test_a_clip_of_every_kind_of_output(predictor):
    found = [predictor(np.full((60, 80, 3), grey, np.uint8)) for grey in (0, 90, 250)]
    clip = Clip()
    for frame in found:
        clip = clip.after(frame)
    view, finding = (torch.tensor([frame.answers[index].values for frame in found]).double() for index in (0, 1))
    assert clip.answers[0].values == pytest.approx(view.log().mean(0).softmax(0).tolist(), abs=1e-6)
    assert clip.answers[1].values == pytest.approx(finding.clamp(1e-7, 1 - 1e-7).logit().mean(0).sigmoid().tolist(), abs=1e-6)
    assert clip.outputs["ef"]["value"] == pytest.approx(np.mean([frame.outputs["ef"]["value"] for frame in found]))
    assert (clip.frames, clip.image_class.name) == (3, clip.outputs["view"]["class"]) and "outputs" in clip.to_dict()
    assert [text for text, _ in clip.say()] == [f"clip {answer.say()[0]}" for answer in clip.answers]
    open_ = Clip(abstain=1.0).after(found[0])
    assert open_.image_class is None and open_.outputs["view"]["class"] is None and open_.outputs["view"]["probabilities"]
    for output, certain in zip(OUTPUTS, ([1.0, 0.0, 0.0], [1.0, 0.0], [100.0]), strict=True):
        mean = output.joined(np.array(certain), 1, np.array(certain[::-1]))  # the surest answers there are
        assert np.isfinite(mean).all()


def test_columns_and_ends_of_a_range_stay_apart(tmp_path):
    outputs = read_outputs({"a": {"labels": ["b"]}, "a_b": {"value": "m", "range": [0, 1]}, "path": {"classes": ["x"]}})
    CsvFiles(tmp_path, outputs).finish()
    header = (tmp_path / "images.csv").read_text().strip().split(",")
    assert len(set(header)) == len(header) == 6 + 2 + 1 + 2
    (value,) = read_outputs({"v": {"value": "m", "range": [0.1, 0.3]}})
    high, low = value.activate(torch.tensor([[40.0], [-40.0]])).numpy().astype(np.float64)
    assert high > 0.3  # in single precision
    assert value.parse([value.format(value.decide(high))]) == (0.3,) and value.parse([value.format(value.decide(low))])[0] >= 0.1


FORMS = {"onnx": "best.onnx", "torchscript": "best.torchscript", "openvino": "best_openvino_model"}


def answers(model: JointBackend, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        boxes, said = model(images)
    return boxes.numpy(), said.numpy()


def assert_same_answers(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found[1] / WIDEST, expected[1] / WIDEST, rtol=0, atol=1e-4)
    assert ((expected[1] / WIDEST).std(0) > 1e-3).all()  # the images differ in what is compared


WIDEST = np.array([1, 1, 1, 1, 1, 100])
"""Range of each answer."""


@pytest.mark.parametrize(("name", "kind", "form"), [(*file, form) for file, forms in EXPORTS.items() for form in forms])
def test_exported_files_say_what_the_checkpoint_says(folder, name, kind, form):
    model, reference = JointBackend(str(folder / f"{name}-{kind}" / FORMS[form])), JointBackend(str(folder / f"{name}.pt"))
    assert model.outputs == reference.outputs == OUTPUTS and model.classification_names == dict(enumerate(VIEW.names))
    assert (model.fixed_size, model.usual_size) == ((SIZE, SIZE) if kind == "fixed" else None, (SIZE, SIZE))
    assert_same_answers(answers(model, pictures(folder)), answers(reference, pictures(folder)))
    if kind == "dynamic":
        images = pictures(folder, 96)[:3, :, :64]
        assert_same_answers(answers(model, images), answers(reference, images))


@pytest.mark.parametrize("kind", ["fixed", "dynamic"])
def test_files_name_their_outputs_and_describe_them(folder, kind):
    import openvino

    graph = onnx.load(folder / f"three-{kind}" / "best.onnx")
    assert [output.name for output in graph.graph.output] == ["output0", "view", "finding", "ef"]
    assert json.loads({entry.key: entry.value for entry in graph.metadata_props}["image_outputs"]) == describe_outputs(OUTPUTS)
    network = openvino.Core().read_model(folder / f"three-{kind}" / FORMS["openvino"] / "best.xml")
    assert {output.any_name for output in network.outputs} == {"output0", "view", "finding", "ef"}
    described = yaml.safe_load((folder / f"three-{kind}" / FORMS["openvino"] / "best.yaml").read_text())
    assert described["image_outputs"] == describe_outputs(OUTPUTS)


def test_outputs_are_found_by_name_in_whatever_order_a_file_has_them(folder, tmp_path):
    import openvino

    model = onnx.load(folder / "three-fixed" / "best.onnx")
    turned = list(model.graph.output)[::-1]
    del model.graph.output[:]
    model.graph.output.extend(turned)
    onnx.save(model, tmp_path / "best.onnx")
    (tmp_path / "openvino_openvino_model").mkdir()
    openvino.save_model(
        openvino.convert_model(str(tmp_path / "best.onnx")), tmp_path / "openvino_openvino_model" / "best.xml", False
    )
    shutil.copy(folder / "three-fixed" / FORMS["openvino"] / "best.yaml", tmp_path / "openvino_openvino_model")
    expected = answers(JointBackend(str(folder / "three.pt")), pictures(folder))
    for file in ("best.onnx", "openvino_openvino_model"):
        assert_same_answers(answers(JointBackend(str(tmp_path / file)), pictures(folder)), expected)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in describe_outputs(OUTPUTS).items() if key != name}


MANGLED = {
    "no mapping": 7,
    "none": {},
    "an unknown kind": {"view": {"grades": ["a"]}},
    "one is missing": without("ef"),
    "another order": dict(reversed(describe_outputs(OUTPUTS).items())),
    "another width": {**describe_outputs(OUTPUTS), "view": {"classes": ["A", "B"]}},
    "an unusable name": {**without("ef"), "output0": {"value": "percent", "range": [0, 1]}},
}


@pytest.mark.parametrize("what", MANGLED)
@pytest.mark.parametrize("form", ["pt", "onnx", "torchscript", "openvino"])
def test_mangled_descriptions_are_one_error(folder, tmp_path, form, what, capsys):
    described, file = MANGLED[what], tmp_path / f"best.{form}"
    if form == "pt":
        contents = torch.load(folder / "three.pt", weights_only=False)
        contents["model"].image_outputs = described
        torch.save(contents, file)
    elif form == "onnx":
        model = onnx.load(folder / "three-fixed" / "best.onnx")
        next(entry for entry in model.metadata_props if entry.key == "image_outputs").value = json.dumps(described)
        onnx.save(model, file)
    elif form == "torchscript":
        extra = {"config.txt": ""}
        model = torch.jit.load(folder / "three-fixed" / "best.torchscript", _extra_files=extra)
        extra["config.txt"] = json.dumps({**json.loads(extra["config.txt"]), "image_outputs": described})
        torch.jit.save(model, file, _extra_files=extra)
    else:
        file = tmp_path / FORMS["openvino"]
        shutil.copytree(folder / "three-fixed" / FORMS["openvino"], file)
        metadata = yaml.safe_load((file / "best.yaml").read_text())
        (file / "best.yaml").write_text(yaml.safe_dump({**metadata, "image_outputs": described}, sort_keys=False))
    if (form, what) in {("onnx", "another order"), ("openvino", "another order")}:  # found by name, nothing is wrong
        model, plain = JointBackend(str(file)), answers(JointBackend(str(folder / "three.pt")), pictures(folder))
        expected = plain[1][:, [5, 3, 4, 0, 1, 2]]
        np.testing.assert_allclose(answers(model, pictures(folder))[1], expected, rtol=1e-4, atol=1e-2)
        return
    with pytest.raises(SystemExit, match="1"):
        run(tmp_path, tmp_path / "out", weights=file.name, source=folder / "data" / "images" / "val")
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1 and "cannot be loaded" in error and "output" in error and "Error" not in error.replace("ERROR", "")
    )
    assert not (tmp_path / "out").exists()


def test_metadata_that_is_no_json_is_one_error(folder, tmp_path):
    model = onnx.load(folder / "three-fixed" / "best.onnx")
    next(entry for entry in model.metadata_props if entry.key == "image_outputs").value = "{"
    onnx.save(model, tmp_path / "best.onnx")
    with pytest.raises(PredictError, match="what it says of its image outputs is damaged, export it again"):
        Predictor(tmp_path / "best.onnx")


@pytest.mark.parametrize(
    "file", ["three.pt", "three-dynamic/best.onnx", "three-fixed/best.torchscript", f"guided-dynamic/{FORMS['openvino']}"]
)
def test_val_measures_every_file(folder, tmp_path, file):
    weights = ["--weights", str(folder / file), "--imgsz", str(SIZE), "--data", str(folder / "data" / "joint.yaml")]
    val([*weights, "--workers", "0", "--bootstrap", "0", "--project", str(tmp_path), "--name", "val", "--batch-size", "3"])
    found = json.loads((tmp_path / "val" / "joint_metrics.json").read_text())
    assert found["outputs"]["view"]["images"] == found["outputs"]["finding"]["images"] == 3 and found["detection"]["mAP50"] > 0
    calibrated = {"temperature", "calibrated_error", "calibrated_loss"} & set(found["outputs"]["view"])
    assert len(calibrated) == (0 if "guided" in file else 3)
    if not file.endswith(".pt"):  # which sees the images with a margin
        said = answers(JointBackend(str(folder / ("guided.pt" if "guided" in file else "three.pt"))), pictures(folder))[1]
        assert found["outputs"]["ef"]["predicted_mean"] == pytest.approx(said[:, 5].mean(), abs=0.5)


def test_upstreams_own_scripts_run_on_every_file(folder, tmp_path):
    files = ["three.pt", *(f"three-fixed/{file}" for file in FORMS.values())]
    counts = set()
    for index, file in enumerate(files):
        common = {"weights": str(folder / file), "project": tmp_path, "exist_ok": True}
        results, *_ = upstream("val").run(
            str(folder / "data" / "joint.yaml"),
            imgsz=SIZE,
            batch_size=1,
            workers=0,
            half=False,
            name=f"val{index}",
            plots=False,
            **common,
        )
        assert results[2] > 0  # mAP50
        source = {"source": str(folder / "data" / "images" / "val"), "imgsz": (SIZE, SIZE), "save_txt": True, "nosave": True}
        upstream("detect").run(**common, **source, conf_thres=0.3, name=f"detect{index}")
        labels = (tmp_path / f"detect{index}" / "labels").glob("*.txt")
        counts.add(sum(len(label.read_text().splitlines()) for label in labels))
    assert len(counts) == 1 and counts.pop() > 10


def test_ensembles_and_test_time_augmentation_give_the_mean_of_the_logits(folder, tmp_path):
    write_checkpoint(tmp_path / "other.pt", pictures(folder), seed=1, classification_names=None, outputs=OUTPUTS)
    files = [str(folder / "three.pt"), str(tmp_path / "other.pt")]
    both = answers(JointBackend(files), pictures(folder))[1]
    with torch.no_grad():
        logits = [JointBackend(file).model(pictures(folder))[1][1].clone() for file in files]
    logits[0][:, : VIEW.width] /= TEMPERATURE
    np.testing.assert_allclose(both, activate(OUTPUTS, torch.stack(logits).mean(0)), rtol=1e-4, atol=1e-4)
    picture = sorted((folder / "data" / "images" / "val").iterdir())[0]
    plain, augmented = (Predictor(folder / "three.pt", imgsz=SIZE, augment=augment)(picture) for augment in (False, True))
    assert list(augmented.outputs) == list(plain.outputs) and augmented.outputs != plain.outputs
    with pytest.raises(PredictError, match="view .classes: .*; finding .labels: .*; finding .labels: "):
        Predictor([folder / "three.pt", folder / "two.pt"])


def test_strip_trust_and_hub(folder):
    joint = read_checkpoint(folder / "three.pt")["model"]
    assert joint.outputs == OUTPUTS and [type(head).__name__ for head in joint.heads] == ["ClassificationHead"] * 3
    stripped = read_checkpoint(strip(folder / "three.pt", folder / "stock.pt").output)["model"]
    assert type(stripped) is upstream("models.yolo").DetectionModel and not hasattr(stripped, "image_outputs")
    with torch.no_grad():
        expected = joint.float().eval()(pictures(folder))[0]
        assert torch.equal(stripped.float().eval()(pictures(folder))[0], expected)
    picture = sorted((folder / "data" / "images" / "val").iterdir())[0]
    for file in ("three.pt", "three-dynamic/best.onnx"):
        backend = upstream("models.common").DetectMultiBackend(str(folder / file))
        results = upstream("models.common").AutoShape(backend, verbose=False)(str(picture), size=SIZE)
        found = results.pandas().xyxy[0]
        boxes = Predictor(folder / "three.pt", imgsz=SIZE)(picture).boxes
        assert len(found) == len(boxes) > 3
        assert sorted(found["confidence"]) == pytest.approx(sorted(box.confidence for box in boxes), abs=1e-3)


def test_pytorchs_own_exports_give_the_same_network(folder, tmp_path):
    pytest.importorskip("onnxscript")
    model, images = read_checkpoint(folder / "guided.pt")["model"].float().eval(), pictures(folder)[:1]
    with torch.no_grad():
        predictions, (_, logits) = model(images)
        found, (_, found_logits) = torch.export.export(model, (images,), strict=False).module()(images)
    assert torch.equal(found, predictions) and torch.equal(found_logits, logits)
    torch.onnx.export(model, (images,), tmp_path / "x.onnx", dynamo=True)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    found, *_, found_logits = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert np.allclose(found, predictions, atol=1e-3) and np.allclose(found_logits, logits, atol=1e-4)


@pytest.mark.parametrize("form", ["pt", *FORMS])
def test_answers_are_calibrated_and_can_be_had_without(folder, form):
    model = JointBackend(str(folder / "three.pt" if form == "pt" else folder / "three-fixed" / FORMS[form]))
    assert model.temperatures == {"view": TEMPERATURE}
    with torch.no_grad():
        logits = JointBackend(str(folder / "three.pt")).model(pictures(folder))[1][1]
    after = answers(model, pictures(folder))[1]
    model.calibrated = False
    before = answers(model, pictures(folder))[1]
    np.testing.assert_allclose(before, activate(OUTPUTS, logits), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(after, activate(OUTPUTS, logits, {"view": TEMPERATURE}), rtol=1e-3, atol=1e-4)
    assert np.abs(after[:, :3] - before[:, :3]).max() > 0.01 and np.array_equal(after[:, :3].argmax(1), before[:, :3].argmax(1))


@pytest.mark.parametrize("temperatures", [{"view": -1.0}, {"view": float("nan")}, {"finding": 2.0}, {"view": 2}, 3.0])
def test_mangled_temperatures_are_one_error(folder, tmp_path, temperatures):
    contents = torch.load(folder / "three.pt", weights_only=False)
    contents["model"].temperatures = temperatures
    torch.save(contents, tmp_path / "best.pt")
    with pytest.raises(PredictError, match="its temperatures are .*, not a number above 0 for each output that tells a class"):
        Predictor(tmp_path / "best.pt")


def test_a_class_below_the_threshold_is_left_open(folder, predictor, tmp_path, caplog):
    files = sorted((folder / "data" / "images" / "val").iterdir())
    sure = sorted(predictor(file).image_class.probability for file in files)
    threshold = (sure[0] + sure[1]) / 2
    out = run(folder, tmp_path, "--save-json", "--save-csv", "--save-txt", "--abstain", str(threshold))
    found, images = json.loads((out / "predictions.json").read_text()), rows(out / "images.csv")
    (index,) = (index for index, row in enumerate(found) if row["image_class"] is None)
    view = found[index]["outputs"]["view"]
    assert view["class"] is None and len(view["probabilities"]) == 3 and view["probability"] == pytest.approx(sure[0])
    assert images[index]["view"] == "" and float(images[index]["view_probability"]) == pytest.approx(sure[0], rel=1e-4)
    record = read_label_file(out / "labels" / f"{found[index]['name']}.txt", None, 0, label_rules(OUTPUTS))
    assert record.image_class is None and set(record.named) == {"finding", "ef"}
    assert f"; view: unsure {sure[0]:.2f}; finding: " in caplog.text and ", unsure 1\n" in caplog.text
    with pytest.raises(PredictError, match="abstain is 2.0: expected 0 to 1"):
        Predictor(folder / "three.pt", abstain=2.0)
    with pytest.raises(PredictError, match="these weights tell none"):
        Predictor(folder / "two.pt", abstain=0.5)


def test_a_model_of_one_class_may_be_unsure(folder, tmp_path):
    write_checkpoint(tmp_path / "one.pt", pictures(folder))
    out = run(
        tmp_path, tmp_path, "--save-json", "--save-csv", "--abstain", "1", weights="one.pt", source=folder / "data/images/val"
    )
    for row, image in zip(json.loads((out / "predictions.json").read_text()), rows(out / "images.csv"), strict=True):
        assert row["image_class"] is row["outputs"]["class"]["class"] is None and image["image_class"] == ""
        assert float(image["probability grey"]) == pytest.approx(row["outputs"]["class"]["probabilities"]["grey"], rel=1e-4)
