"""`predict` and `Predictor`: the same boxes as upstream's `detect.py`, the class beside them, and every kind of output."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import shutil
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from unittest.mock import Mock

import cv2
import matplotlib
import numpy as np
import pytest
import torch
from joint_checkpoint import IMAGE_CLASSES, read_images, write_checkpoint
from joint_data import write_joint_dataset
from PIL import Image
from upstream_data import CLASS_NAMES

from gradnorm_plugin import Predictor
from gradnorm_plugin.labels import read_label_file
from gradnorm_plugin.predict import ImageError, PredictError
from gradnorm_plugin.predict.command import build_parser, main
from gradnorm_plugin.predict.drawing import TAG_COLOUR, DetectedBox, ImageClass, Style, draw
from gradnorm_plugin.predict.images import as_picture, read_image
from gradnorm_plugin.predict.prediction import Clip, Prediction
from gradnorm_plugin.predict.result_files import OutputNames, label_record
from gradnorm_plugin.predict.sources import Frame, open_source
from gradnorm_plugin.upstream.gateway import swapped, upstream

SIZE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pictures` of several sizes and kinds, `clip.mp4` of 7 frames, `joint.pt` and `plain.pt`, which only detects."""
    folder = tmp_path_factory.mktemp("predict")
    write_joint_dataset(folder / "data", images=12)
    drawn = sorted((folder / "data" / "images" / "train").glob("*.jpg"))
    for name in ("joint", "plain"):
        write_checkpoint(folder / f"{name}.pt", read_images(drawn[0].parent, SIZE), joint=name == "joint")
    (folder / "pictures").mkdir()
    clip = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 96))
    for index, file in enumerate(drawn[:7]):
        picture = cv2.imread(str(file))
        clip.write(picture)
        if index < 4:
            size = ((96, 96), (96, 60), (50, 120), (200, 96))[index]
            cv2.imwrite(str(folder / "pictures" / f"{index}{'.png' if index == 3 else '.jpg'}"), cv2.resize(picture, size))
    clip.release()
    return folder


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor(folder / "joint.pt", imgsz=SIZE, conf_thres=0.3)


def run(folder: Path, into: Path, *more: str, weights: str = "joint.pt", source: str = "pictures") -> Path:
    """Predict `source` of `folder`, return the folder of the outputs."""
    common = ["--weights", str(folder / weights), "--source", str(folder / source), "--project", str(into), "--name", "run"]
    main([*common, "--imgsz", str(SIZE), "--conf-thres", "0.3", *more])
    return into / "run"


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def corners(prediction: Prediction) -> np.ndarray:
    return np.array([[box.class_index, box.confidence, *box[3:]] for box in prediction.boxes])


def assert_same_boxes(ours: Prediction, theirs: Prediction) -> None:
    """Another engine rounds otherwise: each box has a partner, unless it is at the threshold of 0.3."""
    for some, others in ((corners(ours), corners(theirs)), (corners(theirs), corners(ours))):
        clear = some[some[:, 1] > 0.301]
        apart = np.abs(clear[:, None] - others[None]) / (0.5, 1e-3, 0.1, 0.1, 0.1, 0.1)
        assert len(clear) > 10 and (apart.max(2).min(1) < 1).all()


def test_boxes_are_those_of_upstreams_detect(folder, predictor, tmp_path):
    upstream("detect").run(
        weights=str(folder / "joint.pt"), source=str(folder / "pictures"), imgsz=(SIZE, SIZE), conf_thres=0.3, nosave=True,
        save_txt=True, save_conf=True, project=tmp_path, name="theirs",
    )  # fmt: skip
    compared = 0
    for file in sorted((folder / "pictures").iterdir()):
        found = predictor(file)
        height, width = found.shape
        lines = np.loadtxt(tmp_path / "theirs" / "labels" / f"{file.stem}.txt", ndmin=2)[::-1]  # theirs has the surest last
        ours = corners(found)
        centres = (ours[:, 2:4].round() + ours[:, 4:6].round()) / 2 / (width, height)
        sizes = (ours[:, 4:6].round() - ours[:, 2:4].round()) / (width, height)
        assert np.allclose(np.hstack([ours[:, :1], centres, sizes, ours[:, 1:2]]), lines, atol=1e-5)
        compared += len(lines)
    assert compared > 20


@pytest.mark.parametrize(("options", "expected"), [({"imgsz": 160}, 160), ({}, 320), (None, 320)])
def test_size_is_the_one_of_training(folder, tmp_path, options, expected):
    contents = torch.load(folder / "joint.pt", weights_only=False)
    torch.save({**contents, "opt": options}, tmp_path / "joint.pt")
    assert Predictor(tmp_path / "joint.pt").imgsz == [expected, expected]
    assert Predictor(tmp_path / "joint.pt", imgsz=(96, 64)).imgsz == [96, 64]


def test_class_is_the_heads(folder, predictor):
    picture = folder / "pictures" / "0.jpg"
    found = predictor(picture)
    model = upstream("models.experimental").attempt_load(str(folder / "joint.pt"))
    expected = model(read_images_of(picture))[1][1].softmax(1)[0].tolist()
    assert list(found.image_class.probabilities.values()) == pytest.approx(expected, abs=1e-5)
    assert list(found.image_class.probabilities) == list(IMAGE_CLASSES.values())
    assert sum(expected) == pytest.approx(1) and found.image_class.probability == pytest.approx(max(expected), abs=1e-5)
    assert found.image_class.name == IMAGE_CLASSES[found.image_class.index] == IMAGE_CLASSES[int(np.argmax(expected))]


def read_images_of(picture: Path) -> torch.Tensor:
    image = cv2.resize(cv2.imread(str(picture)), (SIZE, SIZE))  # 96 x 96: nothing to pad
    return torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy())[None].float() / 255


def test_threads_that_share_a_predictor_get_the_answer_to_their_own_image(folder, predictor):
    arrays = [cv2.imread(str(file)) for file in sorted((folder / "pictures").iterdir())]
    arrays += [array[: array.shape[0] // 2].copy() for array in arrays]  # other shapes: upstream keeps a grid for the last one
    expected = [predictor(array) for array in arrays]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(predictor, arrays * 4))
    for found, alone in zip(together, expected * 4, strict=True):
        assert found.image_class == alone.image_class and found.boxes == alone.boxes
    assert len({found.image_class.probability for found in expected}) > 2


def test_a_list_of_arrays_and_paths_is_as_one_by_one(folder, predictor):
    pictures = sorted((folder / "pictures").iterdir())
    arrays = [cv2.imread(str(file)) for file in pictures]
    together = predictor([*arrays, pictures[0], arrays[0]])
    assert [found.path for found in together] == [None] * 4 + [str(pictures[0]), None]
    for found, array in zip(together, [*arrays, arrays[0], arrays[0]], strict=True):
        alone = predictor(array)
        assert found.shape == array.shape[:2] == alone.image.shape[:2]
        assert np.allclose(corners(found), corners(alone), atol=1e-2)
        assert found.image_class.probabilities == pytest.approx(alone.image_class.probabilities, abs=1e-4)
    assert predictor([]) == []


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    """`joint.onnx` for 2 images and `joint.torchscript` for 2 images, by upstream's export."""
    (folder / "exported").mkdir()
    weights = folder / "exported" / "joint.pt"
    weights.write_bytes((folder / "joint.pt").read_bytes())
    upstream("export").run(weights=weights, imgsz=(SIZE, SIZE), batch_size=2, include=("onnx", "torchscript"))
    return folder / "exported"


@pytest.mark.parametrize(("file", "batch"), [("joint.onnx", 2), ("joint.torchscript", 8)])  # TorchScript takes any number
def test_exported_weights_find_the_same_in_batches_of_their_size(folder, exported, predictor, file, batch):
    square = [cv2.imread(str(path)) for path in sorted((folder / "data/images/train").glob("*.jpg"))[:3]]
    weights = Predictor(exported / file, conf_thres=0.3)
    assert (weights.imgsz, weights.batch_size, weights.classification_names) == ([SIZE, SIZE], batch, IMAGE_CLASSES)
    for ours, theirs in zip(weights(square), predictor(square), strict=True):
        assert_same_boxes(ours, theirs)
        assert ours.image_class.probabilities == pytest.approx(theirs.image_class.probabilities, abs=1e-4)
    with pytest.raises(PredictError, match="imgsz is 96 x 96, but the weights were exported for 64 x 64"):
        Predictor(exported / file, imgsz=96)
    for flag, why in (("augment", "augmented inference needs .pt weights"), ("bfloat16", "for .pt weights of joint networks")):
        with pytest.raises(PredictError, match=why):
            Predictor(exported / file, **{flag: True})


def test_bfloat16_finds_nearly_the_same(folder, predictor):
    pictures = sorted((folder / "data/images/train").glob("*.jpg"))[:3]
    rounded = Predictor(folder / "joint.pt", imgsz=SIZE, conf_thres=0.3, bfloat16=True)(pictures)
    for ours, theirs in zip(rounded, predictor(pictures), strict=True):
        assert ours.image_class.probabilities != theirs.image_class.probabilities
        assert ours.image_class.probabilities == pytest.approx(theirs.image_class.probabilities, abs=0.05)


def test_opencv_runs_onnx(folder, exported, predictor):
    upstream("export").run(weights=exported / "joint.pt", imgsz=(SIZE, SIZE), include=("onnx",))
    picture = folder / "pictures" / "0.jpg"
    found = Predictor(exported / "joint.onnx", imgsz=SIZE, conf_thres=0.3, dnn=True)(picture)
    assert_same_boxes(found, predictor(picture))


def test_command_gives_what_the_predictor_gives(folder, predictor, tmp_path):
    out = run(folder, tmp_path, "--save-json", "--save-csv", "--save-txt", "--save-crop")
    objects = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    images, boxes = rows(out / "images.csv"), Counter(row["name"] for row in rows(out / "boxes.csv"))
    assert [row["name"] for row in objects] == [row["name"] for row in images] == ["0", "1", "2", "3"]
    for row, image in zip(objects, images, strict=True):
        found = predictor(row["path"])
        assert {"name": row["name"], **found.to_dict()} == row
        assert (image["image_class"], int(image["boxes"])) == (found.image_class.name, len(found.boxes))
        assert float(image["probability grey"]) == pytest.approx(found.image_class.probabilities["grey"], rel=1e-4)
        assert boxes[row["name"]] == len(found.boxes) == len(list((out / "crops").rglob(f"{row['name']}_*.jpg")))
        labels = read_label_file(out / "labels" / f"{row['name']}.txt", len(CLASS_NAMES), len(IMAGE_CLASSES))
        assert labels == label_record(found)[0] and labels.image_class == found.image_class.index
        picture = cv2.imread(str(out / Path(row["path"]).name))
        assert picture.shape[:2] == found.shape and not np.array_equal(picture, found.image)
    assert not [name for name in files(out) if "partial" in name]


def test_labels_are_clipped_and_boxes_without_area_are_counted():
    corners = [(-5, 10, 50, 120), (10, 10, 10, 40), (99, 20, 140, 30), (100, 0, 130, 50), (20, 20, 20.00001, 30)]
    boxes = tuple(DetectedBox(index % 2, "x", 0.5, *map(float, box)) for index, box in enumerate(corners))
    found = Prediction("a.jpg", None, (100, 100), boxes, None, np.zeros((100, 100, 3), np.uint8))
    record, left_out = label_record(found)
    assert left_out == 3 and record.image_class is None
    assert record.boxes == ((0, 0.25, 0.55, 0.5, 0.9), (0, 0.995, 0.25, 0.01, 0.1))


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(folder, tmp_path, caplog, capsys):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    whole = (folder / "pictures" / "0.jpg").read_bytes()
    (mixed / "a.jpg").write_bytes(whole)
    (mixed / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (mixed / "cut.png").write_bytes((folder / "pictures" / "3.png").read_bytes()[:2000])
    (mixed / "empty.jpg").touch()
    (mixed / "empty.mp4").touch()
    (mixed / "text.jpg").write_text("no picture")
    (mixed / "z.mp4").write_bytes((folder / "clip.mp4").read_bytes())
    out = run(tmp_path, tmp_path, "--save-csv", weights=str(folder / "joint.pt"), source="mixed")
    assert [row["name"] for row in rows(out / "images.csv")] == ["a", *(f"z_{frame}" for frame in range(1, 8))]
    listed = caplog.text[caplog.text.index("5 files cannot be read:") :]
    for name, reason in {"cut.jpg": "truncated", "cut.png": "truncated", "empty.jpg": "empty", "text.jpg": "no picture",
                         "empty.mp4": "no frame"}.items():  # fmt: skip
        assert reason in next(line for line in listed.splitlines() if str(mixed / name) in line)
    for good in ("a.jpg", "z.mp4"):
        (mixed / good).unlink()
    with pytest.raises(SystemExit, match="1"):
        run(tmp_path, tmp_path / "none", "--save-csv", weights=str(folder / "joint.pt"), source="mixed")
    assert "nothing to predict; 5 files cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_truncated_jpeg_is_refused_whatever_opencv_makes_of_it(folder, tmp_path, monkeypatch):
    """OpenCV 4 gives the upper part of it."""
    whole = (folder / "pictures" / "0.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((96, 96, 3), np.uint8))
    with pytest.raises(ImageError, match="cut.jpg: image file is truncated"):
        Predictor(folder / "joint.pt", imgsz=SIZE)(tmp_path / "cut.jpg")


@pytest.mark.parametrize(("encoding", "newline"), [("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\r")])
def test_a_list_with_spaces_foreign_letters_and_one_name_twice(folder, tmp_path, encoding, newline):
    places = [tmp_path / "ein ordner" / "1 a.jpg", tmp_path / "切面 ä" / "1 a.jpg", tmp_path / "ein ordner" / "1 A.png"]
    for index, place in enumerate(places):
        place.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(place), cv2.imread(str(folder / "pictures" / f"{index}.jpg")))
    (tmp_path / "list.txt").write_text("\n\n".join(map(str, places)), encoding=encoding, newline=newline)
    out = run(tmp_path, tmp_path, "--save-txt", "--save-json", weights=str(folder / "joint.pt"), source="list.txt")
    objects = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    assert sorted(row["path"] for row in objects) == sorted(map(str, places))
    assert len(files(out / "labels")) == 3 == len({row["name"].casefold() for row in objects})
    for row in objects:
        picture = cv2.imdecode(np.fromfile(out / (row["name"] + Path(row["path"]).suffix), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[:2] == (row["height"], row["width"])


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("scans [1]", {"a*.png", "ab.png"}),
        ("scans [1]/*b.png", {"ab.png"}),
        ("scans [1]/a*.png", {"a*.png"}),
        ("s*/b*", {"bc.png"}),
        ("s*", {"bc.png"}),
        ("**/b*.png", {"bc.png"}),
    ],
)
def test_a_name_that_is_there_is_no_pattern(folder, tmp_path, source, found):
    for place in ("scans [1]/a*.png", "scans [1]/ab.png", "s*/bc.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / place), np.zeros((8, 8, 3), np.uint8))
    assert {Path(frame.path).name for frames in open_source(str(tmp_path / source)) for frame in frames} == found


def test_names_of_pictures_and_frames_do_not_meet(tmp_path):
    (tmp_path / "v.mp4").touch()
    names, image = OutputNames(), np.zeros((1, 1, 3), np.uint8)
    frames = [Frame("a/v_7.jpg", image), *(Frame(str(tmp_path / "v.mp4"), image, number, 30) for number in range(1, 9))]
    assert len({names.frame(frame) for frame in frames}) == 9
    assert names.stem(frames[0]) == "v_7" and names.frame(frames[7]) == "v-2_7"


def test_video(folder, predictor, tmp_path):
    out = run(folder, tmp_path, "--save-txt", "--save-csv", "--vid-stride", "2", source="clip.mp4")
    assert files(out) == {"clip.mp4", "images.csv", "boxes.csv", *(f"labels/clip_{frame}.txt" for frame in range(1, 4))}
    video = cv2.VideoCapture(str(out / "clip.mp4"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (3, 5)
    original = cv2.VideoCapture(str(folder / "clip.mp4"))
    assert original.grab() and original.grab()
    expected = predictor(original.retrieve()[1])
    assert rows(out / "images.csv")[0]["image_class"] == expected.image_class.name
    assert np.abs(video.read()[1].astype(int) - expected.draw()).mean() < 8  # mp4v is lossy


def test_a_clip_has_the_mean_of_its_frames_logits(folder, predictor, tmp_path, caplog):
    out = run(folder, tmp_path, "--clip-class", "--save-json", "--save-csv", source="clip.mp4")
    frames = [frame["image_class"]["probabilities"] for frame in json.loads((out / "predictions.json").read_text())]
    logits = torch.tensor([list(frame.values()) for frame in frames], dtype=torch.float64).log()
    (clip,), (row,) = json.loads((out / "clips.json").read_text()), rows(out / "clips.csv")
    assert list(clip["image_class"]["probabilities"].values()) == pytest.approx(logits.mean(0).softmax(0).tolist())
    assert (clip["name"], clip["frames"], "outputs" in clip) == ("clip", 7, False)
    assert (row["frames"], row["image_class"]) == ("7", clip["image_class"]["name"])
    assert float(row["probability"]) == pytest.approx(clip["image_class"]["probability"], rel=1e-5)
    assert f"clip.mp4, 7 frames: {row['image_class']} {clip['image_class']['probability']:.2f}" in caplog.text
    found = predictor(folder / "pictures" / "3.png")
    settling = replace(found, clip=Clip().after(found))
    assert settling.clip.image_class.probabilities == pytest.approx(found.image_class.probabilities)
    heights = [(drawn.draw()[:, 0] == TAG_COLOUR).all(1).sum() for drawn in (found, settling)]
    assert heights[1] > heights[0] > 0  # a second line
    run(folder, tmp_path / "pictures", "--clip-class", "--nosave")
    assert "--clip-class: there was no video" in caplog.text and not (tmp_path / "pictures").exists()


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Predictor:
    """Weights whose class `light` depends on red things: a channel of the first layer, which the head takes its features from."""
    file = write_checkpoint(tmp_path_factory.mktemp("red") / "red.pt", read_images(folder / "pictures", SIZE), shared_layer=0)
    contents = torch.load(file, weights_only=False)
    layer, head = contents["model"].model[0], contents["model"].classification_head
    layer.conv.weight.data[0] = torch.tensor([1.0, -0.5, -0.5])[:, None, None].half() / 9
    layer.bn.running_mean[0], layer.bn.running_var[0], layer.bn.weight.data[0], layer.bn.bias.data[0] = 0, 1, 1, 0
    head.project[0].weight.data.zero_()[0, 0] = 1
    head.linear.weight.data.zero_()[1, [0, 256]] = 20.0
    torch.save(contents, file)
    with torch.inference_mode():
        return Predictor(file, imgsz=128)


@pytest.mark.parametrize("size", [(60, 200), (200, 60), (128, 128), (43, 57)], ids=str)
@pytest.mark.parametrize("place", [(0.2, 0.2), (0.5, 0.8), (0.85, 0.4)], ids=str)
def test_the_map_is_hottest_where_the_class_hangs_on(red, size, place):
    """Whatever the letterbox has put around the picture; blue things of the same form leave it cold."""
    picture = np.full((*size, 3), 90, np.uint8)
    row, column = round(size[0] * place[0]), round(size[1] * place[1])
    other_row, other_column = size[0] - 1 - row, size[1] - 1 - column
    cv2.circle(picture, (other_column, other_row), 5, (255, 0, 0), -1)
    cv2.circle(picture, (column, row), 5, (0, 0, 255), -1)
    with torch.inference_mode():
        found = red(picture)
        (reason,) = found.explain("class").reasons
    assert found.image_class.name == "light" and reason.text == f"light {found.image_class.probability:.2f}"
    assert reason.heat.shape == size and reason.heat.dtype == np.float32 and reason.heat.min() >= 0 and reason.heat.max() == 1
    hottest = np.unravel_index(reason.heat.argmax(), size)
    assert np.hypot(hottest[0] - row, hottest[1] - column) <= 4 and reason.heat[other_row, other_column] < 0.1
    weights = reason.heat * (reason.heat > 0.5)
    centre = [(weights.sum(1 - axis) * np.arange(size[axis])).sum() / weights.sum() for axis in (0, 1)]
    assert centre == pytest.approx((row, column), abs=1)


def test_explained_pictures_and_videos(folder, predictor, tmp_path):
    out = run(folder, tmp_path, "--explain", "--nosave")
    assert files(out) == {f"explained/{name}" for name in ("0.jpg", "1.jpg", "2.jpg", "3.png")}
    found = predictor(folder / "pictures" / "3.png")
    drawn = cv2.imread(str(out / "explained" / "3.png"))
    assert np.array_equal(drawn, found.explain().draw())
    assert np.array_equal(drawn[: found.shape[0], : found.shape[1]], found.draw())  # beside the picture itself
    run(folder, tmp_path / "video", "--explain", "--vid-stride", "2", source="clip.mp4")
    video = cv2.VideoCapture(str(tmp_path / "video" / "run" / "explained" / "clip.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and video.get(cv2.CAP_PROP_FRAME_WIDTH) > 2 * 96


def test_a_prediction_from_another_process_says_that_it_cannot_explain(predictor):
    found = predictor(np.full((40, 60, 3), 90, np.uint8))
    copy = pickle.loads(pickle.dumps(found))
    assert copy == found
    with pytest.raises(PredictError, match="explain where it predicts"):
        copy.explain()
    with pytest.raises(PredictError, match="explain view: the image outputs are class"):
        found.explain("view")


@pytest.mark.parametrize("name", ["0.jpg", "clip.mp4"])
def test_a_picture_or_video_at_an_address_is_fetched_whatever_lies_in_the_working_folder(folder, tmp_path, monkeypatch, name):
    served = folder / "pictures" if name == "0.jpg" else folder
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"something else")
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{name}"
        secret = f"{address}?token=secret".replace("://", "://me:secret@")
        main(["--weights", str(folder / "joint.pt"), "--source", secret, "--project", "out", "--save-json"])
        server.shutdown()
    found = json.loads(Path("out/exp/predictions.json").read_text(encoding="utf-8"))
    assert {image["path"] for image in found} == {address} and len(found) == (1 if name == "0.jpg" else 7)
    assert files(Path("out/exp")) == {name, "predictions.json"} and Path(name).read_bytes() == b"something else"


def test_a_password_in_an_address_is_shown_nowhere(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(upstream("utils.general").LOGGER, "propagate", True)
    with pytest.raises(PredictError) as error:
        open_source("rtsp://me:secret@127.0.0.1:1/door?token=secret")
    assert "rtsp://127.0.0.1:1/door" in str(error.value) and "secret" not in str(error.value)
    clip = cv2.VideoCapture(str(folder / "clip.mp4"))
    monkeypatch.setattr(cv2, "VideoCapture", lambda address: clip)
    monkeypatch.setattr(upstream("utils.dataloaders"), "Thread", Mock)  # the first frame is enough
    (frame,) = next(iter(open_source("rtsp://me:secret@camera/door?token=secret")))
    assert frame.path == "rtsp_//camera/door" and "1/1: rtsp://camera/door" in caplog.text and "secret" not in caplog.text


def test_streams_run_side_by_side(folder, tmp_path):
    for name in ("one.mp4", "two.mp4"):
        (tmp_path / name).write_bytes((folder / "clip.mp4").read_bytes())
    (tmp_path / "both.streams").write_text(f"{tmp_path / 'one.mp4'}\n{tmp_path / 'two.mp4'}")

    class Thread:  # the frames of a real reader would depend on how fast this machine is
        left = 3

        def __init__(self, **_: object) -> None: ...

        def start(self) -> None: ...

        def is_alive(self) -> bool:
            Thread.left -= 1
            return Thread.left > 0

    with swapped(upstream("utils.dataloaders"), Thread=Thread):
        out = run(tmp_path, tmp_path, "--save-csv", weights=str(folder / "joint.pt"), source="both.streams")
    assert {"one.mp4", "two.mp4"} < files(out)
    assert [row["name"] for row in rows(out / "images.csv")] == ["one_1", "two_1"]


def test_what_was_predicted_before_ctrl_c_is_kept_and_nothing_half_written_after_an_error(folder, tmp_path, monkeypatch):
    outputs = ("--save-json", "--save-csv")
    real = Predictor.__call__
    for stop, expected in ((KeyboardInterrupt, {"clip.mp4", "predictions.json", "images.csv", "boxes.csv"}), (OSError, set())):
        calls = iter(range(9))

        def breaks(self, *arguments, stop=stop, calls=calls):
            if next(calls) == 3:
                raise stop("disk full")
            return real(self, *arguments)

        monkeypatch.setattr(Predictor, "__call__", breaks)
        if stop is KeyboardInterrupt:
            run(folder, tmp_path / stop.__name__, *outputs, source="clip.mp4")
            assert len(json.loads((tmp_path / stop.__name__ / "run/predictions.json").read_text())) == 3
        else:
            with pytest.raises(SystemExit, match="1"):
                run(folder, tmp_path / stop.__name__, *outputs, source="clip.mp4")
        assert files(tmp_path / stop.__name__) == {f"run/{name}" for name in expected}


def test_nosave_writes_nothing(folder, tmp_path):
    run(folder, tmp_path / "none", "--nosave")
    assert not (tmp_path / "none").exists()


def test_few_images_have_a_line_each_and_many_a_bar(folder, tmp_path, caplog, capsys):
    run(folder, tmp_path, "--nosave")
    assert f"2/4 {folder / 'pictures' / '1.jpg'}: " in caplog.text and "predict:" not in capsys.readouterr().err
    caplog.clear()
    run(folder, tmp_path, "--nosave", source="data/images/train")
    assert "1/12" not in caplog.text and "12 images; boxes:" in caplog.text
    assert "12/12" in capsys.readouterr().err


def test_weights_that_only_detect(folder, tmp_path, caplog):
    out = run(folder, tmp_path, "--save-txt", "--save-csv", weights="plain.pt")
    assert "no classification_names in these weights, boxes only" in caplog.text
    plain = Predictor(folder / "plain.pt", imgsz=SIZE, conf_thres=0.3)
    for row in rows(out / "images.csv"):
        expected = label_record(plain(row["path"]))[0]
        assert (row["image_class"], expected.image_class) == ("", None) and expected.boxes
        assert read_label_file(out / "labels" / f"{row['name']}.txt", len(CLASS_NAMES), 0) == expected


def test_names_that_yaml_took_for_numbers_and_other_things_are_text(folder, tmp_path):
    """Old checkpoints hold what YAML made of `names: [2024, yes]`; upstream's own detect.py joins the name to a path."""
    weights, contents = tmp_path / "old.pt", torch.load(folder / "joint.pt", weights_only=False)
    odd = [2024, True, None, 0.5]
    contents["model"].names = {index: odd[index] for index in range(len(CLASS_NAMES))}
    contents["model"].classification_names = {index: odd[-1] if index else "=x" for index in range(len(IMAGE_CLASSES))}
    torch.save(contents, weights)
    out = run(folder, tmp_path, "--save-crop", "--save-csv", "--save-json", "--save-txt", weights=str(weights))
    texts = {str(name) for name in odd[: len(CLASS_NAMES)]}
    assert {row["class"] for row in rows(out / "boxes.csv")} == {folder.name for folder in (out / "crops").iterdir()} <= texts
    for image in json.loads((out / "predictions.json").read_text(encoding="utf-8")):
        assert {box["name"] for box in image["boxes"]} <= texts
        assert len(image["image_class"]["probabilities"]) == len(IMAGE_CLASSES)
    more = {"source": str(folder / "pictures"), "imgsz": (SIZE, SIZE), "conf_thres": 0.3, "save_crop": True}
    upstream("detect").run(weights=str(weights), **more, project=tmp_path, name="theirs")
    assert {crops.name for crops in (tmp_path / "theirs" / "crops").iterdir()} <= texts


def test_visualize_crops_update_and_style_flags(folder, tmp_path):
    weights = tmp_path / "copy.pt"
    weights.write_bytes((folder / "joint.pt").read_bytes())
    stage = upstream("utils.plots").feature_visualization
    seen = []
    with swapped(upstream("models.yolo"), feature_visualization=lambda *a, save_dir: seen.append(save_dir)):
        more = ("--visualize", "--update", "--hide-labels", "--hide-conf", "--line-thickness", "1", "--agnostic-nms")
        out = run(folder, tmp_path, *more, weights=str(weights), source="pictures/0.jpg")
    assert stage is upstream("models.yolo").feature_visualization
    assert set(seen) == {out / "features" / "0"} and len(seen) == 25
    assert Predictor(weights).classification_names == IMAGE_CLASSES


@pytest.mark.parametrize("name", ["A4C", "a very long name of a class that fits into no small picture", "心尖四腔"])
@pytest.mark.parametrize("shape", [(40, 40), (12, 30), (300, 500)])
def test_tag_of_the_class(name, shape):
    image = np.full((*shape, 3), 200, np.uint8)
    image_class = ImageClass(0, name, 0.875, {name: 0.875, "other": 0.125})
    drawn = draw(image, [], image_class, Style())
    assert drawn.shape == image.shape and (image == 200).all()
    dark = (drawn == TAG_COLOUR).all(2)
    assert dark[0, 0] and (shape[0] < 100 or not dark[shape[0] // 3 :].any())
    assert np.array_equal(draw(image, [], image_class, Style(labels=False)), image)
    box = DetectedBox(1, "red", 0.5, 10, 5, 25, 11)
    with_box = draw(image, [box], None, Style(line_width=1, labels=False))
    assert np.allclose(with_box[5, 15], upstream("utils.plots").colors(1, True), atol=12)  # smoothed


def squares(text: str) -> np.ndarray:
    return draw(np.zeros((60, 200, 3), np.uint8), [], ImageClass(0, text, 0.5, {text: 0.5}), Style())


@pytest.fixture
def one_more_font(monkeypatch):
    """A font with letters that DejaVu Sans lacks is installed; Matplotlib ships it."""
    fonts = upstream("utils.fonts")
    stix = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "STIXGeneral.ttf"
    monkeypatch.setattr(fonts, "installed", lambda: {str(stix): "STIXGeneral"})
    dejavu = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    letters = [
        chr(c) for c in sorted(fonts.letters_of(str(stix)) - fonts.letters_of(str(dejavu))) if chr(c).isalpha() and c < 0xE000
    ]
    assert len(letters) > 3
    return letters


def test_names_are_drawn_with_a_font_that_has_their_letters(one_more_font, caplog):
    first, second = one_more_font[:2]
    assert not np.array_equal(squares(first), squares(second))
    boxes = [[DetectedBox(0, name, 0.5, 10, 30, 90, 50)] for name in (first, second)]
    assert not np.array_equal(*(draw(np.zeros((60, 200, 3), np.uint8), box, None, Style()) for box in boxes))
    assert "no installed font" not in caplog.text


def test_letters_that_no_font_has_are_named_once(one_more_font, caplog):
    upstream("utils.fonts").warn.cache_clear()
    for text in ("\U00012000\U00012001 x", "\U00012001\U00012000"):  # Sumerian
        squares(text)
    assert caplog.text.count("no installed font has \U00012000\U00012001, drawn as empty squares") == 1
    assert "fonts-noto-core" in caplog.text
    squares("\u200d\ufe0f\u202e e\u0301")  # nothing to see in these, or a letter of every font
    assert caplog.text.count("no installed font") == 1


def test_chinese_with_a_font_that_is_really_installed():
    fonts = upstream("utils.fonts")
    if not any(ord(letter) in fonts.letters_of(file) for letter in "心" for file in fonts.installed()):
        pytest.skip("no font with Chinese letters is installed here")
    assert not np.array_equal(squares("白天"), squares("夜晚"))


def test_long_names_are_cut_and_keep_the_number():
    image = np.zeros((60, 120, 3), np.uint8)
    long = [ImageClass(0, "n" * 80 + end, p, {}) for end, p in (("a", 0.25), ("b", 0.25), ("b", 0.75))]
    first, second, other = (draw(image, [], image_class, Style()) for image_class in long)
    assert np.array_equal(first, second) and not np.array_equal(second, other)


@pytest.fixture(scope="module")
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("form", ["PIL", "bytes", "bytearray", "memoryview", "opened file", "BytesIO", "pathlib"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_way_to_hand_over_a_file_gives_the_picture_of_its_path(colours, tmp_path, form, orientation):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(colours).save(path, exif=exif)
    with path.open("rb") as opened, Image.open(path) as pil:
        content = path.read_bytes()
        image = {"PIL": pil, "bytes": content, "bytearray": bytearray(content), "memoryview": memoryview(content),
                 "opened file": opened, "BytesIO": io.BytesIO(content), "pathlib": path}[form]  # fmt: skip
        place, picture = as_picture(image)
    assert np.array_equal(picture, read_image(path)) and picture.shape == ((20, 30, 3) if orientation < 5 else (30, 20, 3))
    assert place == (str(path) if form in {"PIL", "opened file", "pathlib"} else None)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_pil_images_of_every_mode_are_as_their_files(colours, tmp_path, mode):
    image = Image.fromarray(colours).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(colours[..., 0].astype(np.uint16) * 256 + 5)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    expected = colours[..., ::-1] if mode == "CMYK" else read_image(path)
    assert np.array_equal(as_picture(image)[1], expected)


def test_arrays_of_every_form_that_says_what_it_is(colours):
    grey = np.repeat(colours[..., :1], 3, axis=2)
    spanning = colours.copy()
    spanning.flat[:2] = 0, 255  # what has more than 8 bits is spread from 0 to 255
    read_only = colours.copy()
    read_only.flags.writeable = False
    forms = [
        (colours, colours), (read_only, colours), (np.dstack([colours, grey[..., 0]]), colours),
        (spanning.astype(">u2") << 7, spanning),
        (grey[..., 0], grey), (grey[..., :1], grey), (colours[::-1, ::2, ::-1], colours[::-1, ::2, ::-1]),
        (np.zeros((2, 2), np.uint16), np.zeros((2, 2, 3))), (np.asfortranarray(colours), colours),
    ]  # fmt: skip
    for given, expected in forms:
        picture = as_picture(given)[1]
        assert np.array_equal(picture, expected) and picture.dtype == np.uint8 and picture.flags.c_contiguous
    assert as_picture(colours)[1] is colours


def _closed() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((8, 8, 2), np.uint8), r"\(8, 8, 2\) of uint8$"),
        (np.zeros((8, 8, 3), np.float32), r"\(8, 8, 3\) of float32: .* give \(array \* 255\)"),
        (np.zeros((8, 8), bool), r"\(8, 8\) of bool: .* give \(array \* 255\)"),
        (np.zeros((8, 8, 3), np.int64), r"of int64: .* give array.astype"),
        (np.full((8, 8), 200, np.uint16), r"of uint16, with no value above 255"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        (np.zeros((3, 8, 9), np.uint8), r"channels first, give array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"a batch, give list\(array\)"),
        (np.array("x.jpg"), r"\(\) of <U5"),
        (torch.zeros(3, 8, 8), r"a tensor \(3, 8, 8\) of torch.float32"),
        (None, "NoneType None"),
        (7, "int 7"),
        (0.5, "float 0.5"),
        ({"image": 1}, "dict"),
        ({"x.jpg"}, "set"),
        ([["x.jpg"]], r"image 1 of those given: .* found list \['x.jpg'\]"),
        (iter([np.zeros((8, 8, 3), np.uint8), None]), "image 2 of those given: .* found NoneType"),
        (io.StringIO("x"), "binary mode"),
        (Path("/dev/zero"), "not a regular file"),
        (_closed(), "the opened file: I/O operation on closed file"),
        (b"", "empty"),
        (b"abc", "these 3 bytes: no picture"),
        ("a\0.jpg", "null byte"),
        ("https://example.com/a.jpg", "an address, not a file"),
        (Image.new("L", (0, 8)), "0 x 8 pixels"),
    ],
)
def test_what_is_no_image_is_one_error(predictor, image, found):
    with pytest.raises(PredictError, match=found):
        predictor(image)


@pytest.mark.parametrize("shape", [(1, 5000, 3), (5000, 1, 3)])
def test_a_picture_that_would_be_scaled_to_nothing_has_an_answer(predictor, shape):
    found = predictor(np.zeros(shape, np.uint8))
    assert found.shape == shape[:2] and sum(found.image_class.probabilities.values()) == pytest.approx(1)


def test_settings_of_any_type_are_used_or_one_error(folder, predictor):
    for device in (torch.device("cpu"), None, "auto"):
        assert Predictor(folder / "joint.pt", np.int64(SIZE), device=device).imgsz == [SIZE, SIZE]
    for setting, value in (
        ("imgsz", 0), ("imgsz", "64"), ("imgsz", 64.0), ("imgsz", 1 << 24), ("conf_thres", "0.3"), ("iou_thres", None),
        ("max_det", 1.5), ("batch_size", 0), ("classes", 1), ("classes", "01"), ("weights", None), ("weights", []),
        ("device", 99),
    ):  # fmt: skip
        weights = folder / "joint.pt" if setting == "device" else predictor.backend
        with pytest.raises(PredictError, match=setting):
            Predictor(**{"weights": weights, setting: value})
    with pytest.raises(PredictError, match="://127.0.0.1:1/x.pt cannot be") as error:
        Predictor("http://me:secret@127.0.0.1:1/x.pt?token=secret")
    assert "secret" not in str(error.value)


def test_collections_of_images_of_any_kind(folder, predictor):
    path = folder / "pictures" / "0.jpg"
    array = cv2.imread(str(path))
    expected = predictor(array)
    mixed = [path, array, Image.fromarray(array[..., ::-1]), path.read_bytes()]
    for collection in (mixed, tuple(mixed), iter(mixed), (image for image in mixed), deque(mixed)):
        found = predictor(collection)
        assert len(found) == 4
        for one in found:
            assert np.allclose(corners(one), corners(expected), atol=1e-2) and one.image_class.index == expected.image_class.index
    assert predictor(()) == predictor(iter(())) == []


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--save-conf"], 2, "--save-json and --save-csv hold them"),
        (["--vid-stride", "0"], 2, "--vid-stride must be at least 1"),
        (["--line-thickness", "0"], 2, "--line-thickness must be at least 1"),
        (["--weights", "gone.pt"], 1, "weights gone.pt: no such file"),
        (["--weights", "junk.pt"], 1, "weights junk.pt cannot be loaded"),
        (["--source", "gone"], 1, "gone does not exist"),
        (["--source", "empty.txt"], 1, "--source empty.txt is empty"),
        (["--source", "big5.txt"], 1, "--source big5.txt:1: byte 0 of the file (0xA4) is not UTF-8: save the file as UTF-8"),
        (["--source", "ftp://h/a.png"], 1, "--source ftp://h/a.png: addresses begin with rtsp://, rtmp://, http://, https://"),
        (["--source", "urls.txt"], 1, "--source urls.txt: https://h/a.png is an address: a list holds paths"),
        (["--source", "http://[::1/a.png"], 1, "--source http://[::1/a.png cannot be opened: ValueError: Invalid IPv6 URL"),
        (["--source", "三"], 1, "三 does not exist"),
        (["--source", "."], 1, "No images or videos found"),
        (["--source", "empty.streams"], 1, "--source empty.streams is empty"),
        (["--source", "gone.streams"], 1, "Failed to open gone.streams"),
        (["--classes", "0", "9"], 1, "classes 9: the weights know 0 red, 1 blue"),
        (["--conf-thres", "2"], 1, "conf_thres is 2.0: expected 0 to 1"),
        (["--max-det", "0"], 1, "max_det is 0: expected a whole number, at least 1"),
        (["--imgsz", "1", "2", "3"], 1, "imgsz is [1, 2, 3]"),
        (["--imgsz", "0"], 1, "imgsz is [0]: expected pixels"),
        (["--view-img"], 1, "--view-img: no window can be opened here"),
        (["--explain", "--weights", "PLAIN"], 1, "explain tells why something is said of the whole image, and these"),
        (["--explain", "--weights", "JOINT", "JOINT"], 1, "explain needs one .pt file"),
        (["--clip-class", "--weights", "PLAIN"], 1, "--clip-class: these weights say nothing of the whole image"),
    ],
)
def test_what_is_wrong_is_one_message(folder, tmp_path, more, status, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    (tmp_path / "junk.pt").write_text("no pickle")
    (tmp_path / "empty.streams").touch()
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "urls.txt").write_text("https://h/a.png?key=1\n")
    (tmp_path / "big5.txt").write_text("中.jpg", encoding="big5")
    more = [str(folder / f"{word.lower()}.pt") if word in ("JOINT", "PLAIN") else word for word in more]
    with pytest.raises(SystemExit) as stopped:
        run(folder, tmp_path / "out", *more)
    assert stopped.value.code == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["--weights", "--source"])
def test_weights_and_source_have_to_be_named(missing, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([part for flag in {"--weights", "--source"} - {missing} for part in (flag, "x.pt")])
    assert f"{missing} is missing" in capsys.readouterr().err


def test_every_flag_of_upstreams_detect_is_there(capsys):
    flags = {option for action in build_parser()._actions for option in action.option_strings}
    source = Path(upstream("detect").__file__).read_text(encoding="utf-8")
    theirs = {line.split("'")[1] for line in source.splitlines() if line.strip().startswith("parser.add_argument('--")}
    assert len(theirs) > 25 and theirs | {"--save-json", "--save-csv"} <= flags
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--save-csv" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_among_pictures_and_videos_is_not_waited_for(folder, tmp_path):
    pipes = [tmp_path / name for name in ("film.mp4", "picture.png", "scan.dcm")]
    for pipe in pipes:
        os.mkfifo(pipe)
    shutil.copy(folder / "clip.mp4", tmp_path / "later.mp4")
    source = open_source(str(tmp_path))
    assert len(list(source)) == source.total == 7
    assert sorted(source.unreadable) == [
        f"{tmp_path / name}: not a regular file" for name in ("film.mp4", "picture.png", "scan.dcm")
    ]
