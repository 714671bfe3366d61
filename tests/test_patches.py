"""The patches to upstream: they explain themselves, apply to the genuine tree, and do what they say."""

from __future__ import annotations

import socket
import subprocess
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from gradnorm_plugin.upstream.checkout import REPOSITORY, find_checkout
from gradnorm_plugin.upstream.gateway import upstream
from gradnorm_plugin.upstream.patching import answer_files, patch_files, touched_files
from gradnorm_plugin.upstream.pinned import COMMIT

dataloaders, general = upstream("utils.dataloaders"), upstream("utils.general")

PATCHES = patch_files(REPOSITORY)
ONE_HOT = ["0 1 0", "1", "1 0", "0 1", "0 0 0 0 1", "1 0 0 0 0", "0 0 0 1 0 0 0", "0 1 0\n\n", "0 1 0\n  \t\n"]
BOXES = "0 0.5 0.5 0.25 0.25\n1 0.25 0.25 0.125 0.5\n"


def git(folder: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True).stdout


@pytest.mark.parametrize("patch", [*PATCHES, *answer_files(PATCHES)], ids=lambda patch: patch.stem)
def test_opens_with_an_explanation(patch: Path) -> None:
    explanation = patch.read_text(encoding="utf-8").partition("diff --git ")[0].partition("Answers ")[0]
    assert len(explanation.split()) > 30 and explanation.endswith(".\n\n")


def test_they_apply_in_order_to_the_genuine_tree_and_come_off_one_by_one(tmp_path: Path) -> None:
    checkout = find_checkout()
    if not (checkout / ".git").exists() or git(checkout, "rev-parse", "HEAD").decode().strip() != COMMIT:
        pytest.skip(f"YOLOV5_DIR={checkout} is not at the pinned commit")
    touched = {name for patch in PATCHES for name in touched_files(patch)}
    for name in touched & set(git(checkout, "ls-tree", "-r", "--name-only", "HEAD").decode().splitlines()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(git(checkout, "cat-file", "blob", f"HEAD:{name}"))
    git(tmp_path, "init", "--quiet")
    for patch in PATCHES:
        git(tmp_path, "apply", "--whitespace=error-all", str(patch))
    patched = {name: (tmp_path / name).read_text(encoding="utf-8") for name in touched}
    for patch in reversed(PATCHES):
        git(tmp_path, "apply", "--reverse", str(patch))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in touched:
            if name.endswith(".py"):
                compile(patched[name], name, "exec")


def read_labels(folder: Path, text: str) -> tuple[Any, ...]:
    """Upstream's own reader: boxes, and its counts of missing, found, empty and corrupt files."""
    Image.new("RGB", (64, 64)).save(folder / "image.png")
    (folder / "image.txt").write_text(text, encoding="utf-8")
    result = dataloaders.verify_image_label((str(folder / "image.png"), str(folder / "image.txt"), ""))
    return result[1], *result[4:8]


@pytest.mark.parametrize("one_hot", ONE_HOT)
def test_reader_leaves_out_the_class_of_the_image(tmp_path: Path, one_hot: str) -> None:
    plain_boxes, *plain_counts = read_labels(tmp_path, BOXES)
    assert plain_boxes.shape == (2, 5) and plain_counts == [0, 1, 0, 0]
    for between in ("", "\n", "  \n\n"):
        boxes, *counts = read_labels(tmp_path, BOXES + between + one_hot)
        np.testing.assert_array_equal(boxes, plain_boxes)
        assert counts == plain_counts


@pytest.mark.parametrize("one_hot", ONE_HOT)
def test_reader_takes_an_image_of_which_only_the_class_is_known_for_background(tmp_path: Path, one_hot: str) -> None:
    boxes, missing, _, empty, corrupt = read_labels(tmp_path, "\n" + one_hot)
    assert boxes.shape == (0, 5) and (missing, empty, corrupt) == (0, 1, 0)


@pytest.mark.parametrize("last", ["1 0.5 0.5 1 1", "0 1 1", "0 0 0", "0 2 0", "0 1.0 0", "x"])
def test_reader_treats_any_other_last_line_as_before(tmp_path: Path, last: str) -> None:
    boxes, _, _, _, corrupt = read_labels(tmp_path, BOXES + last)
    assert corrupt == (last != "1 0.5 0.5 1 1") and (boxes is None or len(boxes) == 3)


def test_cache_of_the_unpatched_reader_is_not_trusted() -> None:
    assert dataloaders.LoadImagesAndLabels.cache_version != 0.6


@pytest.mark.parametrize("name", ["rotated.jpg", "rotated.png"])
def test_size_of_a_rotated_photograph_is_the_upright_one(tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / name, exif=exif)
    assert dataloaders.exif_size(Image.open(tmp_path / name)) == (20, 40)


@pytest.mark.parametrize(("stem", "expected"), [("000000000042", 42), ("三", "三"), ("²", "²"), ("½ a", "½ a")])
def test_predictions_are_of_a_number_only_where_the_picture_has_one(stem: str, expected: int | str) -> None:
    found: list[dict[str, Any]] = []
    upstream("val").save_one_json(torch.tensor([[0.0, 0, 2, 2, 0.5, 0]]), found, Path(f"{stem}.jpg"), [7])
    assert [row["image_id"] for row in found] == [expected]


def test_requirements_that_are_not_met_are_named_and_nothing_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(general.LOGGER, "warning", said.append)
    monkeypatch.setattr(general, "check_output", pytest.fail)
    monkeypatch.setattr(subprocess, "Popen", pytest.fail)
    file = tmp_path / "requirements.txt"
    file.write_text("# base\n\nnumpy>=1.18.5\nno-such-thing>=2  # why\nleft-out\ntorch>=99\n", encoding="utf-8")
    assert not general.check_requirements(file, exclude=("left-out",))
    assert '"no-such-thing>=2" "torch>=99"' in said[0] and "numpy" not in said[0] and "left-out" not in said[0]
    assert general.check_requirements(("numpy", "opencv-python>=4.5.4"), install=True, cmds="-U")
    assert len(said) == 1


def test_a_font_that_cannot_be_fetched_is_replaced_after_one_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []

    def no_host(*_: Any, **__: Any) -> None:
        attempts.append(1)
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(general, "CONFIG_DIR", tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", no_host)
    fonts = {general.check_font("Arial.Unicode.ttf", progress=progress) for progress in (True, False)}
    assert fonts == {Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"}
    assert len(attempts) == 1 and not list(tmp_path.iterdir())


def test_a_predicted_box_without_a_size_has_a_loss_and_all_others_the_same() -> None:
    found = torch.tensor([[0.0, 0, 0, 0], [0, 0, 1e-20, 0], [0.5, 0.5, 2e-7, 1e-6], [0.1, 0.4, 1, 3]], requires_grad=True)
    labelled = torch.tensor([0.2, 0.3, 1.0, 2.0]).expand(4, 4)
    iou = upstream("utils.metrics").bbox_iou(found, labelled, CIoU=True)
    iou.sum().backward()
    assert torch.isfinite(iou).all() and torch.isfinite(found.grad).all()
    assert iou.max() == iou[-1] and not iou[0] > 0
    (w, h, (left, right), (top, bottom)) = (1.0, 3.0, (-0.3, 0.6), (-0.7, 1.3))
    common = (min(0.6, right + 0.1) - max(-0.4, left)) * (bottom - top)
    assert torch.isclose(upstream("utils.metrics").bbox_iou(found, labelled)[-1, 0], torch.tensor(common / (w * h + 2 - common)))


@pytest.mark.parametrize("name", ["../../x", "/etc", "C:\\x", "..", ".", "", "a\nb", "x" * 300, 7])
def test_crops_of_any_class_go_into_one_folder_below_crops(tmp_path: Path, name: Any) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    detections = [torch.tensor([[2.0, 2.0, 30.0, 30.0, 0.9, 0.0]])]
    times, shape = [general.Profile()] * 3, (1, 3, 32, 32)
    found = upstream("models.common").Detections([image], detections, ["1.jpg"], times, {0: name}, shape)
    found.crop(save_dir=tmp_path / "run", exist_ok=True)
    crop, drawn = sorted((path for path in tmp_path.rglob("*") if path.is_file()), key=lambda path: -len(path.parts))
    assert crop.parent.parent == tmp_path / "run" / "crops" and crop.name == drawn.name == "1.jpg"


def test_a_class_whose_name_has_dollars_is_drawn_as_it_is_called(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matrix = upstream("utils.metrics").ConfusionMatrix(nc=2)
    matrix.plot(save_dir=tmp_path, names=["$\\frac$", "US$ and CA$"])
    assert (tmp_path / "confusion_matrix.png").is_file() and "failure" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["person", "left ventricle", "AR", "臺灣", "a.b", "7"])
def test_an_ordinary_class_has_the_folder_that_it_always_had(name: str) -> None:
    assert upstream("utils.plots").crop_folder(name) == name


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server on this machine, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


@pytest.mark.parametrize("find", [general.check_file, upstream("utils.downloads").attempt_download])
def test_an_address_is_never_answered_from_a_file_of_its_name(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: Callable[[str], str]
) -> None:
    address, folder = served
    logged: list[str] = []
    monkeypatch.setattr(general.LOGGER, "info", logged.append)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (folder / "x y.yaml").write_text("new")
    secret = f"{address}/x%20y.yaml?key=1".replace("://", "://me:password@")
    assert find(secret) == "x y.yaml" and Path("x y.yaml").read_text() == "new"
    assert logged == [f"Downloading {address}/x%20y.yaml to x y.yaml..."]
    general.print_args({"source": [secret, "a?b"], "weights": "x.pt"})  # as the scripts echo their flags
    assert logged.pop().endswith(f"source=['{address}/x%20y.yaml', 'a?b'], weights=x.pt")
    assert find(f"{address}/x%20y.yaml") == "x y.yaml"  # the same still
    Path("x y.yaml").write_text("old")
    with pytest.raises(FileExistsError, match="x y.yaml is there already, and not what .*: remove or rename it"):
        find(f"{address}/x%20y.yaml")
    Path("gone.yaml").write_text("old")
    with pytest.raises(FileNotFoundError, match=r"/gone.yaml cannot be fetched \(404\)"):
        find(f"{address}/gone.yaml?key=1")
    with pytest.raises(FileNotFoundError, match=r"cannot be fetched \(ConnectionError\)"):
        find("http://127.0.0.1:1/gone.yaml")
    for no_name in (f"{address}/", f"{address}/..", address):
        with pytest.raises(FileNotFoundError, match="does not end in the name of a file"):
            find(no_name)
    (folder / "empty.yaml").touch()
    with pytest.raises(FileNotFoundError, match="is empty"):
        find(f"{address}/empty.yaml")
    assert sorted(path.name for path in here.iterdir()) == ["gone.yaml", "x y.yaml"]
    assert Path("x y.yaml").read_text() == Path("gone.yaml").read_text() == "old"


def test_a_path_that_says_where_the_file_is_is_not_looked_for_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(general.check_yaml("coco.yaml")) == find_checkout() / "data" / "coco.yaml"
    for elsewhere in ("./coco.yaml", "../coco.yaml", str(tmp_path / "*.yaml"), "co[c]o.yaml"):
        with pytest.raises(AssertionError, match="File not found"):
            general.check_yaml(elsewhere)
