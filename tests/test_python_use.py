"""The samples for Python in README.md (or docs/predict.md) run as they stand, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from joint_checkpoint import IMAGE_CLASSES, read_images, write_checkpoint
from joint_data import write_joint_dataset

from gradnorm_plugin import Predictor
from gradnorm_plugin.upstream.gateway import upstream

REPOSITORY = Path(__file__).parents[1]
SIZE = 320  # the samples name none, and the weights do not say


def sample(name: str) -> str:
    """The Python block under the comment `<!-- sample: name -->`."""
    for page in ("README.md", "docs/predict.md"):
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        found = re.search(rf"<!-- sample: {name} -->\n+```python\n(.*?)```", text, re.DOTALL)
        if found:
            return found[1]
    raise AssertionError(f"no sample {name} in README.md or docs/predict.md")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`best.pt`, `best.onnx` and `picture.jpg`, which is wider than high."""
    folder = tmp_path_factory.mktemp("samples")
    write_joint_dataset(folder / "data", images=4)
    pictures = folder / "data" / "images" / "train"
    write_checkpoint(folder / "best.pt", read_images(pictures, SIZE))
    cv2.imwrite(str(folder / "picture.jpg"), cv2.resize(cv2.imread(str(pictures / "0.jpg")), (150, 97)))
    upstream("export").run(weights=folder / "best.pt", imgsz=(SIZE, SIZE), include=("onnx",))
    return folder


def run(folder: Path, code: str) -> str:
    """What the code prints, run in the folder."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines_of(output: str) -> list[tuple[str, list[float]]]:
    """Each line as its name and its numbers."""
    rows = [re.sub(r"[\[\]]", " ", line).split() for line in output.splitlines() if line and line.split()[0] in KNOWN]
    return [(row[0], [float(value) for value in row[1:]]) for row in rows]


KNOWN = {*IMAGE_CLASSES.values(), "red", "blue"}


def test_checkpoint_sample(folder):
    (image_class, (probability,)), *boxes = lines_of(run(folder, sample("checkpoint")))
    expected = Predictor(folder / "best.pt", imgsz=SIZE)(folder / "picture.jpg")
    assert image_class == expected.image_class.name and probability == pytest.approx(expected.image_class.probability, abs=1e-5)
    assert len(boxes) == len(expected.boxes) > 10
    for (name, values), box in zip(boxes, expected.boxes, strict=True):
        assert name == box.name and values == pytest.approx(list(box[2:]), abs=1e-2)
    drawn = cv2.imread(str(folder / "drawn.jpg"))
    assert drawn.shape == (97, 150, 3) and np.abs(drawn.astype(int) - expected.image).mean() > 1


def test_onnx_sample_needs_no_torch_and_finds_the_same(folder):
    code = sample("onnx")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    check = (
        "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'gradnorm_plugin', 'models'}))"
    )
    output = run(folder, f"{code}\nprint('loaded:', end=' ')\n{check}")
    assert output.splitlines()[-1].strip() == "loaded:"
    (image_class, (probability,)), *boxes = lines_of(output)
    expected = Predictor(folder / "best.onnx", max_det=5000)(folder / "picture.jpg")
    assert image_class == expected.image_class.name and probability == pytest.approx(expected.image_class.probability, abs=1e-5)
    assert len(boxes) > 10
    # Upstream clips the boxes to the image after NMS, and takes half a pixel of padding where there is none of it.
    found = sorted((name, confidence, left, top, left + w, top + h) for name, (confidence, left, top, w, h) in boxes)
    theirs = sorted(box[1:] for box in expected.boxes)
    assert len(found) == len(theirs)
    for ours, other in zip(found, theirs, strict=True):
        clipped = [*np.clip(ours[2::2], 0, 150), *np.clip(ours[3::2], 0, 97)]
        assert ours[0] == other[0] and ours[1] == pytest.approx(other[1], abs=1e-4)
        assert clipped == pytest.approx([*other[2::2], *other[3::2]], abs=0.3)
