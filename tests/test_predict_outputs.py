"""`predict`, `Predictor` and exported files of a model with three image outputs, one of each kind."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from joint_checkpoint import read_images, write_checkpoint
from joint_data import write_joint_dataset
from upstream_data import CLASS_NAMES

from gradnorm_plugin import Prediction, Predictor
from gradnorm_plugin.labels import read_label_file
from gradnorm_plugin.model.checkpoint import read_checkpoint
from gradnorm_plugin.outputs import label_rules, read_outputs
from gradnorm_plugin.predict.command import main
from gradnorm_plugin.predict.outputs import CsvFiles
from gradnorm_plugin.predict.prediction import TAG_COLOUR, Style

SIZE = 64
OUTPUTS = read_outputs(
    {
        "view": {"classes": ["PSAX", "PLAX", "A4C"]},
        "finding": {"labels": ["effusion", "=calcification"]},
        "ef": {"value": "percent", "range": [0, 100]},
    }
)
VIEW, FINDING, EF = OUTPUTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pictures`; `three.pt`, and `two.pt` without an output that tells a class."""
    folder = tmp_path_factory.mktemp("outputs")
    write_joint_dataset(folder / "data", images=8)
    (folder / "data" / "images" / "val").rename(folder / "pictures")
    pictures = read_images(folder / "pictures", SIZE)
    for name, outputs in (("three", OUTPUTS), ("two", (FINDING, EF))):
        write_checkpoint(folder / f"{name}.pt", pictures, classification_names=None, outputs=outputs)
        spread_answers(folder / f"{name}.pt")
    return folder


def spread_answers(file: Path) -> None:
    """Make untrained heads tell pictures apart."""
    contents = torch.load(file, weights_only=False)
    for head in contents["model"].heads:
        head.linear.weight.data *= 8
    torch.save(contents, file)


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor(folder / "three.pt", imgsz=SIZE, conf_thres=0.3)


def run(folder: Path, into: Path, *more: str, weights: str = "three.pt") -> Path:
    """Predict the pictures, return the folder of the outputs."""
    common = ["--weights", str(folder / weights), "--source", str(folder / "pictures"), "--project", str(into), "--name", "run"]
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
    parts = logits[0].split([output.width for output in model.outputs])
    return [output.activate(part[None])[0].numpy() for output, part in zip(model.outputs, parts, strict=True)]


def test_a_prediction_has_what_each_output_says(folder, predictor):
    said = set()
    for picture in sorted((folder / "pictures").iterdir()):
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
    assert len(said) == len(list((folder / "pictures").iterdir()))


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


def test_columns_and_ends_of_a_range_stay_apart(tmp_path):
    outputs = read_outputs({"a": {"labels": ["b"]}, "a_b": {"value": "m", "range": [0, 1]}, "path": {"classes": ["x"]}})
    CsvFiles(tmp_path, outputs).finish()
    header = (tmp_path / "images.csv").read_text().strip().split(",")
    assert len(set(header)) == len(header) == 6 + 2 + 1 + 2
    (value,) = read_outputs({"v": {"value": "m", "range": [0.1, 0.3]}})
    high, low = value.activate(torch.tensor([[40.0], [-40.0]])).numpy().astype(np.float64)
    assert high > 0.3  # in single precision
    assert value.parse([value.format(value.decide(high))]) == (0.3,) and value.parse([value.format(value.decide(low))])[0] >= 0.1
