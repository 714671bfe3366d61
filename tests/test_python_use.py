"""The samples for Python in README.md, docs/predict.md and docs/ecosystem.md run as they stand, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from joint_checkpoint import IMAGE_CLASSES, read_images, write_checkpoint
from joint_data import write_joint_dataset

from gradnorm_plugin import Predictor
from gradnorm_plugin.evaluation.command import main as val
from gradnorm_plugin.export import Suppression, suppress
from gradnorm_plugin.predict.prediction import Clip
from gradnorm_plugin.upstream.checkout import find_checkout
from gradnorm_plugin.upstream.gateway import upstream

REPOSITORY = Path(__file__).parents[1]
PAGES = ("README.md", "docs/predict.md", "docs/ecosystem.md")
SIZE = 320  # the samples name none, and the weights do not say


def sample(name: str) -> str:
    """The Python block under the comment `<!-- sample: name -->`."""
    for page in PAGES:
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        found = re.search(rf"<!-- sample: {name} -->\n+```python\n(.*?)```", text, re.DOTALL)
        if found:
            return found[1]
    raise AssertionError(f"no sample {name} in {', '.join(PAGES)}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`best.pt`, `best.onnx` and `picture.jpg`, which is wider than high."""
    folder = tmp_path_factory.mktemp("samples")
    write_joint_dataset(folder / "data", images=4)
    pictures = folder / "data" / "images" / "train"
    write_checkpoint(folder / "best.pt", read_images(pictures, SIZE))
    cv2.imwrite(str(folder / "picture.jpg"), cv2.resize(cv2.imread(str(pictures / "0.jpg")), (150, 97)))
    upstream("export").run(weights=folder / "best.pt", imgsz=(SIZE, SIZE), include=("onnx",), opset=17)
    suppress(folder / "best.onnx", folder / "best_nms.onnx", Suppression(max_det=5000))
    (folder / "pictures").symlink_to(pictures)
    (folder / "yolov5").symlink_to(find_checkout())
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


def test_explanations_and_clips_of_the_samples(folder):
    frames = "frames = ['picture.jpg', *sorted(map(str, __import__('pathlib').Path('pictures').glob('*.jpg')))]"
    code = "\n".join((sample("checkpoint"), "print('EXPLAINED')", sample("explain"), "print('JOINED')", frames, sample("clip")))
    explained, joined = run(folder, code).partition("EXPLAINED\n")[2].split("JOINED\n")
    reason, *regions = explained.splitlines()
    predictor = Predictor(folder / "best.pt", imgsz=SIZE)
    found = predictor(folder / "picture.jpg")
    assert reason == f"class {found.explain().reasons[0].text} (97, 150)" and not regions  # the head is pooled
    assert cv2.imread(str(folder / "explained.jpg")).shape[:2] == found.explain().draw().shape[:2]
    clip = Clip()
    for each in predictor([str(folder / "picture.jpg"), *sorted(map(str, (folder / "pictures").glob("*.jpg")))]):
        clip = clip.after(each)
    assert clip.image_class.name in joined and repr(clip.image_class.probability)[:6] in joined


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


def test_the_sample_for_a_file_with_nms_finds_the_same(folder):
    code, end = sample("onnx"), "(rows,), (probabilities,)"
    output = run(folder, code[: code.index(end)].replace("best.onnx", "best_nms.onnx") + sample("nms"))
    (image_class, _), *boxes = lines_of(output)
    expected = Predictor(folder / "best.onnx", max_det=5000)(folder / "picture.jpg")
    assert image_class == expected.image_class.name and len(boxes) == len(expected.boxes) > 10
    found = sorted((name, *values) for name, values in boxes)  # equal confidences have no order
    for (name, confidence, *corners), box in zip(found, sorted(expected.boxes, key=lambda box: box[1:]), strict=True):
        clipped = [*np.clip(corners[::2], 0, 150), *np.clip(corners[1::2], 0, 97)]
        assert name == box.name and confidence == pytest.approx(box.confidence, abs=1e-4)
        assert clipped == pytest.approx([box.x1, box.x2, box.y1, box.y2], abs=0.3)


def test_eight_bits_keep_both_outputs(folder, tmp_path):
    run(folder, sample("int8"))
    made = folder / "best_int8.onnx"
    assert made.stat().st_size < 0.4 * (folder / "best.onnx").stat().st_size
    images = sorted((folder / "pictures").glob("*.jpg"))
    for found, expected in zip(Predictor(made)(images), Predictor(folder / "best.onnx")(images), strict=True):
        probabilities, exact = (list(of.image_class.probabilities.values()) for of in (found, expected))
        assert 0 < np.abs(np.subtract(probabilities, exact)).max() < 0.1 and len(found.boxes) > 0.5 * len(expected.boxes) > 5
    common = ["--data", str(folder / "data" / "joint.yaml"), "--workers", "0", "--bootstrap", "0", "--project", str(tmp_path)]
    val(["--weights", str(made), *common])


@pytest.mark.parametrize("tool", ["supervision", "sahi"])
def test_sample_for_another_tool(folder, tool):
    for package in {"supervision": ["supervision"], "sahi": ["sahi", "yolov5"]}[tool]:
        if not find_spec(package):
            pytest.skip(f"{package} is not installed")
    output = run(folder, sample(tool))
    expected = Predictor(folder / "best.pt", imgsz=SIZE)(folder / "picture.jpg")
    if tool == "supervision":
        assert output.split() == [expected.image_class.name, str(len(expected.boxes))]
        assert np.abs(cv2.imread(str(folder / "drawn.jpg")).astype(int) - expected.image).mean() > 1
    else:
        assert len(lines_of(output)) > 5


def test_the_notebook_runs(tmp_path):
    """Its code cells as they stand, in one process; lines with `!` through the shell, the one with `%`, which installs, not."""
    notebook = json.loads((REPOSITORY / "docs" / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])
    shell = "import subprocess\ndef shell(line):\n    subprocess.run(line, shell=True, check=True)\n"
    lines = [line for cell in cells for line in cell.splitlines() if not line.startswith("%")]
    code = shell + "\n".join(f"shell(f{line[1:]!r})" if line.startswith("!") else line for line in lines)
    small = "--cfg yolov5n.yaml --weights= --imgsz 64 --epochs 1 --batch-size 4 --workers 0 --device cpu"
    data = write_joint_dataset(tmp_path / "data", images=8, size=64)
    flags = {"TRAIN": f"--data {data} {small} --gradnorm-interval 1 --gradnorm-warmup 1", "RUN": str(tmp_path / "runs" / "quick")}
    environment = {
        **os.environ,
        **{f"QUICKSTART_{name}": value for name, value in {**flags, "TESTS": "--version"}.items()},
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY / "docs", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "quick" / "report.html").is_file() and "setup: YOLOv5" in done.stdout and "pytest" in done.stdout
