"""Label files are read once a start, and not again before one of them changes; what is kept of them is never trusted blindly."""

from __future__ import annotations

import gc
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_dataset import HYP, NAMES, SIZE, description, joint, write_images

from gradnorm_plugin.data import caches as kept
from gradnorm_plugin.data import checking
from gradnorm_plugin.data.checking import check_labels, collector_paused
from gradnorm_plugin.data.dataset import JointDataset, create_joint_dataloader
from gradnorm_plugin.data.description import DescriptionError
from gradnorm_plugin.labels import LabelErrors
from gradnorm_plugin.outputs import class_output
from gradnorm_plugin.upstream.gateway import upstream

dataloaders = upstream("utils.dataloaders")
general = upstream("utils.general")

CLASSES = [0, 1, -1, 1, 0]


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    for split in ("train", "val"):
        write_images(tmp_path / split, CLASSES)
    return description(tmp_path)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The files that our reader and upstream's have read, in threads here where they can be counted."""
    found: dict[str, list[str]] = {"ours": [], "upstream": []}
    read, verify = checking.read_label_file, dataloaders.verify_image_label

    def counted_read(path: str, *rules: Any) -> Any:
        found["ours"].append(path)
        return read(path, *rules)

    def counted_verify(arguments: tuple[str, str, str]) -> Any:
        found["upstream"].append(arguments[1])
        return verify(arguments)

    monkeypatch.setattr(checking, "read_label_file", counted_read)
    monkeypatch.setattr(dataloaders, "verify_image_label", counted_verify)
    monkeypatch.setattr(dataloaders, "Pool", ThreadPool)
    monkeypatch.setattr(checking, "ProcessPoolExecutor", ThreadPoolExecutor)
    return found


OUTPUTS = (class_output(NAMES),)


def start(data: dict[str, Any]) -> tuple[JointDataset, JointDataset]:
    """What training does before its first batch."""
    scans = check_labels(data)
    options = {"outputs": OUTPUTS, "num_box_classes": 4, "workers": 0}
    _, train = create_joint_dataloader(data["train"], SIZE, 4, 32, hyp=HYP, augment=True, scan=scans["train"], **options)
    _, val = create_joint_dataloader(data["val"], SIZE, 4, 32, rect=True, pad=0.5, scan=scans["val"], **options)
    return train, val


def label_file(data: dict[str, Any], name: str, split: str = "train") -> Path:
    return Path(data[split]).parent / "labels" / f"{name}.txt"


def rewrite(file: Path, text: str) -> None:
    """Write with a time that surely differs from the one before."""
    time = file.stat().st_mtime_ns + 1_000_000
    file.write_text(text)
    os.utime(file, ns=(time, time))


def caches(data: dict[str, Any]) -> list[str]:
    folder = Path(data["train"]).parent
    return sorted(path.name for path in folder.iterdir() if path.name not in ("images", "labels"))


def test_each_file_is_read_once_then_not_at_all(data: dict[str, Any], reads: dict[str, list[str]]) -> None:
    train, val = start(data)
    for files in reads.values():
        assert sorted(files) == sorted(train.label_files + val.label_files)
    assert caches(data) == ["labels.cache", "labels.joint.cache"]
    for files in reads.values():
        files.clear()
    again = start(data)
    assert reads == {"ours": [], "upstream": []}
    for before, after in zip((train, val), again, strict=True):
        assert after.image_classes.tolist() == before.image_classes.tolist()
        assert after.im_files == before.im_files


def test_a_label_file_that_was_replaced_is_read_anew_though_size_and_time_are_the_same(data: dict[str, Any]) -> None:
    before = start(data)[0].image_classes
    file = max((Path(data["train"]).parent / "labels").iterdir())
    text = file.read_text()
    *boxes, one_hot = text.splitlines()
    other = " ".join(reversed(one_hot.split()))
    assert other != one_hot
    state = file.stat()
    file.write_text(text.replace(one_hot, other))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat().st_size == state.st_size
    assert (start(data)[0].image_classes != before).sum() == 1


def test_data_set_is_upstreams(data: dict[str, Any]) -> None:
    theirs = dataloaders.LoadImagesAndLabels(data["val"], SIZE, 4, rect=True, pad=0.5)
    for _ in range(2):
        _, ours = start(data)
        assert (ours.im_files, ours.label_files, ours.segments) == (theirs.im_files, theirs.label_files, theirs.segments)
        assert np.array_equal(ours.shapes, theirs.shapes) and np.array_equal(ours.batch_shapes, theirs.batch_shapes)
        assert all(np.array_equal(*pair) for pair in zip(ours.labels, theirs.labels, strict=True))
        assert ours.image_classes.tolist() == [int(Path(file).stem.split("_")[1]) for file in ours.im_files]


def test_a_change_of_the_same_size_is_noticed(data: dict[str, Any]) -> None:
    """Upstream's hash is of sizes alone: with its cache the boxes would be the old ones."""
    start(data)
    rewrite(label_file(data, "00_0"), "0 0.5 0.5 0.7 0.4\n\n0 1\n")
    train, _ = start(data)
    assert train.image_classes[0] == 1 and train.labels[0][0, 3] == np.float32(0.7)
    plain = dataloaders.LoadImagesAndLabels(data["train"], SIZE, 4)
    assert plain.labels[0][0, 3] == np.float32(0.7), "the cache that upstream's own scripts read is up to date as well"


def test_files_that_come_and_go_are_noticed(data: dict[str, Any]) -> None:
    file = label_file(data, "00_0")
    file.unlink()
    assert start(data)[0].image_classes.tolist() == [-1, 1, -1, 1, 0]
    file.write_text("0 1\n")
    assert start(data)[0].image_classes.tolist() == [1, 1, -1, 1, 0]
    write_images(file.parents[2] / "more", [1])
    for kind in ("images", "labels"):
        for new in (file.parents[2] / "more" / kind).iterdir():
            new.rename(file.parents[1] / kind / f"99{new.suffix}")
    assert start(data)[0].image_classes.tolist() == [1, 1, -1, 1, 0, 1]


def test_a_change_after_the_check_is_noticed(data: dict[str, Any], reads: dict[str, list[str]]) -> None:
    scan = check_labels(data)["train"]
    rewrite(label_file(data, "00_0"), "0 0.5 0.5 0.3 0.4\n\n0 1\n")
    assert joint(data["train"], scan=scan).image_classes[0] == 1
    rewrite(label_file(data, "00_0"), "0 0.5 1.5 0.3 0.4\n\n0 1\n")
    with pytest.raises(LabelErrors, match="coordinate 1.5 is outside 0..1"):
        joint(data["train"], scan=scan)


def test_wrong_files_leave_no_cache_and_no_old_class(data: dict[str, Any]) -> None:
    label_file(data, "01_1", "val").write_text("1 1\n")
    with pytest.raises(LabelErrors, match="01_1.txt:1: a one-hot line with 2 ones"):
        check_labels(data)
    assert caches(data) == []
    label_file(data, "01_1", "val").write_text("1 0\n")
    start(data)
    rewrite(label_file(data, "01_1", "val"), "1 1\n")
    for _ in range(2):
        with pytest.raises(LabelErrors, match="01_1.txt:1: a one-hot line with 2 ones"):
            check_labels(data)


def test_other_bounds_read_again(data: dict[str, Any]) -> None:
    start(data)
    with pytest.raises(LabelErrors, match="class 3 is outside names"):
        joint(data["train"], num_box_classes=3)
    with pytest.raises(LabelErrors, match="of 2 values, but classification_names has 3"):
        joint(data["train"], outputs=(class_output(["a", "b", "c"]),))


def test_other_rules_read_again(data: dict[str, Any], reads: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    start(data)
    reads["ours"].clear()
    monkeypatch.setattr(kept, "_RULES", "another version of gradnorm_plugin/labels.py")
    start(data)
    assert len(reads["ours"]) == 2 * len(CLASSES)


class Command:
    """Would write a file if it were unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    kept = dict(np.load(path))
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "a bit":
        content[content.index(kept["target class"].tobytes())] ^= 1
        path.write_bytes(content)
    elif how == "text":
        path.write_text("not a cache")
    elif how == "pickle":
        with path.open("wb") as file:
            np.save(file, np.array(Command(path.with_name("ran")), dtype=object), allow_pickle=True)
    else:
        kept |= {
            "lacks classes": {"states": kept["states"]},
            "too few": {"target class": kept["target class"][1:]},
            "too high": {"target class": kept["target class"] + 1},
            "fractions": {"target class": kept["target class"].astype(float)},
            "objects": {"target class": np.array([Command(path.with_name("ran"))] * len(CLASSES), dtype=object)},
        }[how]
        if how == "lacks classes":
            del kept["target class"]
        with path.open("wb") as file:
            np.savez(file, **kept)


@pytest.mark.parametrize(
    "how", ["empty", "cut", "a bit", "text", "pickle", "lacks classes", "too few", "too high", "fractions", "objects"]
)
def test_a_damaged_cache_is_made_anew(data: dict[str, Any], reads: dict[str, list[str]], how: str) -> None:
    joint(data["train"])
    cache = Path(data["train"]).parent / "labels.joint.cache"
    sound = cache.read_bytes()
    damage(cache, how)
    assert cache.read_bytes() != sound
    reads["ours"].clear()
    assert joint(data["train"]).image_classes.tolist() == CLASSES
    assert len(reads["ours"]) == len(CLASSES)
    assert caches(data) == ["labels.cache", "labels.joint.cache"], "nothing was run"
    joint(data["train"])
    assert len(reads["ours"]) == len(CLASSES), "and it is sound again"


def test_a_folder_that_cannot_be_written_to(data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Here because a folder stands where the cache would; permissions do not stop the user that runs tests in a container."""
    cache = Path(data["train"]).parent / "labels.joint.cache"
    cache.mkdir()
    lines: list[str] = []
    monkeypatch.setattr(general.LOGGER, "warning", lines.append)
    for _ in range(2):
        assert start(data)[0].image_classes.tolist() == CLASSES
    assert len(lines) == 2 and f"{cache} cannot be written (Is a directory): every start will read" in lines[0]
    assert caches(data) == ["labels.cache", "labels.joint.cache"], "no temporary file is left"


def test_lists_of_one_folder_do_not_share_a_cache(tmp_path: Path, reads: dict[str, list[str]]) -> None:
    images = sorted(write_images(tmp_path, CLASSES).iterdir())
    data = {**description(tmp_path), "train": str(tmp_path / "train.txt"), "val": str(tmp_path / "val.txt")}
    for split, files in (("train", images[:3]), ("val", images[3:])):
        (tmp_path / f"{split}.txt").write_text("\n".join(map(str, files)))
    start(data)
    reads["ours"].clear()
    train, val = start(data)
    assert (train.image_classes.tolist(), sorted(val.image_classes), reads["ours"]) == ([0, 1, -1], [0, 1], [])


def test_upstreams_cache_alone_is_not_enough(data: dict[str, Any], reads: dict[str, list[str]]) -> None:
    """As after upstream's own `val.py`: the files it accepts are still held against our rules."""
    label_file(data, "00_0").write_text("0 0.5 0.5 0.3 0.4\n0 1\n0 1\n")
    label_file(data, "01_1").write_text("0 0.5 0.5 0.3 0.4\n0 0.5 0.5 0.3 0\n")
    dataloaders.LoadImagesAndLabels(data["train"], SIZE, 4)
    with pytest.raises(LabelErrors, match="2 label files are wrong"):
        check_labels(data)


def test_an_image_that_changed_is_left_to_upstream(data: dict[str, Any], reads: dict[str, list[str]]) -> None:
    start(data)
    for files in reads.values():
        files.clear()
    image = Path(data["train"]) / "00_0.png"
    image.write_bytes(image.read_bytes()[:60])
    train, _ = start(data)
    assert train.image_classes.tolist() == CLASSES[1:] and [Path(file).stem for file in train.im_files][0] == "01_1"
    assert not reads["ours"] and len(reads["upstream"]) == len(CLASSES)


def test_upstreams_messages_have_their_prefix(data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    image = Path(data["train"]) / "00_0.png"
    image.write_bytes(b"")
    lines: list[str] = []
    scan = check_labels(data)["train"]
    monkeypatch.setattr(general.LOGGER, "info", lines.append)
    joint(data["train"], prefix="train: ", scan=scan)
    assert lines[0].startswith(f"train: WARNING ⚠️ {image}: ignoring corrupt image/label: ")


def test_other_processes_of_a_machine_use_the_caches_of_the_first(data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataloaders, "LOCAL_RANK", 0)
    joint(data["train"])
    written = (Path(data["train"]).parent / "labels.cache").stat().st_mtime_ns
    monkeypatch.setattr(dataloaders, "LOCAL_RANK", 1)
    assert joint(data["train"]).image_classes.tolist() == CLASSES
    assert (Path(data["train"]).parent / "labels.cache").stat().st_mtime_ns == written


def test_files_named_later_are_not_read(data: dict[str, Any], reads: dict[str, list[str]]) -> None:
    dataset = joint(data["train"])
    reads["ours"].clear()
    dataset.label_files = dataset.label_files[:2]
    assert len(dataset.label_files) == 2 and not reads["ours"]


def test_collector_goes_on_as_before() -> None:
    with pytest.raises(KeyError), collector_paused():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled() and gc.get_freeze_count() == 0
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def end_reader(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_reader_that_is_killed_is_one_error(data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """At our check and, where its result is kept, at upstream's own reading. A pool of multiprocessing waits for ever."""
    start(data)
    (Path(data["train"]).parent / "labels.cache").unlink()
    monkeypatch.setattr(dataloaders, "verify_image_label", end_reader)
    scan = check_labels(data)["train"]
    assert scan.results is None
    with pytest.raises(DescriptionError, match="a process that reads .* was killed, .* start again"):
        joint(data["train"], scan=scan)
    rewrite(label_file(data, "00_0"), "0 1 0\n")
    with pytest.raises(DescriptionError, match="was killed"):
        check_labels(data)
