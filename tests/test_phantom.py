"""The demo set: its counts, that a seed fixes its bytes, that its labels say what is drawn, that it is whole or absent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import gradnorm_demo
from gradnorm_demo import Settings, generate
from gradnorm_demo.bmode import fill
from gradnorm_demo.dataset import MANIFEST, draw, label_text, plans
from gradnorm_demo.plan import (
    FINDINGS,
    HEART_UNIT,
    JETS,
    LEVEL_VIEW,
    VIEWS,
    Case,
    Extras,
    count_cases,
    plan_split,
    reference_cases,
)
from gradnorm_demo.render import MAX_OVERLAP, Rendered, overlap, render
from gradnorm_plugin.data import image_outputs
from gradnorm_plugin.data.checking import check_labels
from gradnorm_plugin.labels import parse_label_text
from gradnorm_plugin.outputs import label_rules

SMALL = Settings(train=9, val=3, seed=5, size=96)
BARE = Extras(effusion=0, lead=False, side=1.0, stated=())
GOLDEN = [  # number, plane, boxes, greys
    (0, "aortic", [[133, 125, 168, 146], [124, 166, 162, 183], [193, 117, 213, 137]], [0, 0, 0, 2, 32, 7, 0, 66, 21, 77, 46, 62]),
    (1, "plax", [[91, 124, 194, 146], [147, 158, 202, 186]], [0, 0, 0, 1, 89, 0, 0, 151, 0, 0, 0, 70]),
    (12, "a4c", [[113, 178, 127, 207]], [0, 0, 0, 89, 0, 78, 57, 12, 2, 0, 105, 26]),
    (62, "mitral", [], [0, 0, 0, 85, 65, 0, 80, 98, 3, 43, 15, 51]),
    (113, "papillary", [], [0, 0, 0, 12, 0, 113, 0, 0, 35, 136, 13, 15]),
]
CASES = [case for case, _ in reference_cases()]
REPOSITORY = Path(__file__).parents[1]


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def inside(drawn: Rendered, points: np.ndarray) -> np.ndarray:
    """The pixels (size, size) within an outline of heart coordinates, boolean."""
    canvas = np.zeros(drawn.image.shape[:2], np.uint8)
    fill(canvas, drawn.pose.points(points), 255)
    return canvas > 127


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask with so many pixels more all around, or fewer."""
    change, side = (cv2.dilate if pixels > 0 else cv2.erode), 2 * abs(pixels) + 1
    return change(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0


def contrast(drawn: Rendered, mask: np.ndarray, around: np.ndarray) -> float:
    """How many times brighter the mask is than what is around it, within the fan and without colour or overlays."""
    image = drawn.image.astype(float)
    grey = drawn.fan & (np.ptp(image, 2) < 20)
    return float(image[mask & grey].mean() / image[around & grey].mean())


@pytest.mark.parametrize("seed", [0, 1])
def test_training_split_has_the_published_counts(seed: int) -> None:
    counts = count_cases(plans(Settings(seed=seed))["train"])
    assert counts["jets"] == {"AR": 1250, "MR": 429, "PR": 84, "TR": 319}
    assert counts["views"] == {"PSAX": 374, "PLAX": 555, "A4C": 111}
    assert (counts["images"]["all"], counts["images"]["without view label"]) == (1042, 2)


def test_validation_split_has_the_same_proportions() -> None:
    counts = count_cases(plans(Settings())["val"])
    assert counts["images"]["all"] == 183
    for kind, published in (("jets", (1250, 429, 84, 319)), ("views", (374, 555, 111))):
        for found, wanted in zip(counts[kind].values(), published, strict=True):
            assert abs(found - wanted * 183 / 1042) < 2


@given(images=st.integers(1, 3000), seed=st.integers(0, 99))
def test_every_split_has_the_size_asked_for(images: int, seed: int) -> None:
    plan = plan_split(images, np.random.default_rng(seed))
    assert len(plan) == images
    expected = {case: count * images / 1042 for case, count in reference_cases()}
    assert all(abs(count - expected[case]) < 1 for case, count in Counter(plan).items())


def test_jets_are_only_where_the_view_shows_their_valve() -> None:
    shown = {"PLAX": {"AR", "MR"}, "A4C": {"MR", "TR"}, "PSAX": {"AR", "PR", "TR"}, None: set(JETS)}
    assert all(set(case.jets) <= shown[case.view] for case in CASES)
    assert all(not case.jets for case in CASES if case.level in ("papillary", "mitral"))


@settings(deadline=None, max_examples=100)
@given(case=st.sampled_from(CASES), seed=st.integers(0, 2**32 - 1), size=st.sampled_from([96, 128, 161]))
def test_each_box_is_the_tight_frame_of_a_coloured_jet(case: Case, seed: int, size: int) -> None:
    drawn = render(case, size, np.random.default_rng(seed))
    assert drawn.image.shape == (size, size, 3)
    assert len(drawn.boxes) == len(drawn.masks) == len(case.jets)
    colourful = np.ptp(drawn.image.astype(int), axis=2) > 20
    for (x1, y1, x2, y2), mask in zip(drawn.boxes.tolist(), drawn.masks, strict=True):
        assert 0 <= x1 < x2 <= size and 0 <= y1 < y2 <= size
        inside = mask[y1:y2, x1:x2]
        assert inside.sum() == mask.sum() > 0
        assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
        assert colourful[mask].mean() > 0.5
    assert parse_label_text(label_text(case, drawn.boxes, size), len(JETS), len(VIEWS))


def test_at_the_default_size_jets_are_visible_and_apart() -> None:
    wanted = Settings(train=80, val=1, seed=3)
    long_sides, pairs = [], []
    for index, case in enumerate(plans(wanted)["train"]):
        boxes = draw(case, wanted, "train", index).boxes
        long_sides += np.max(boxes[:, 2:] - boxes[:, :2], axis=1).tolist() if len(boxes) else []
        pairs += [overlap(tuple(a), tuple(b)) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert np.mean([25 <= side <= 110 for side in long_sides]) > 0.9
    assert min(long_sides) >= 12
    assert max(pairs) <= MAX_OVERLAP


def test_a_picture_without_flow_is_grey() -> None:
    for seed in range(6):
        image = render(Case("aortic"), 160, np.random.default_rng(seed)).image.astype(int)
        colourful = (np.ptp(image, axis=2) > 30)[: int(160 * 0.9), : int(160 * 0.9)]  # without the overlays at the rim
        if not colourful.any():
            return
    pytest.fail("six pictures without a jet all show colour")


def test_the_demo_set_is_what_it_always_was() -> None:
    """Figures of the docs were measured on it. Grey along a diagonal of speckle; other processors round a little otherwise."""
    plan = plans(Settings())["train"]
    for index, level, boxes, greys in GOLDEN:
        drawn = draw(plan[index], Settings(), "train", index)
        assert plan[index].level == level and drawn.boxes.tolist() == boxes
        found = drawn.image[range(40, 280, 20), range(40, 280, 20), 1]
        np.testing.assert_allclose(found.astype(int), greys, atol=2)


@pytest.mark.parametrize("seed", [0, 1])
def test_findings_are_spread_over_all_views_and_some_lines_are_missing(seed: int) -> None:
    plain, plan = (plans(Settings(seed=seed, outputs=outputs))["train"] for outputs in (False, True))
    assert plain == [replace(case, extras=None) for case in plan]
    for view in VIEWS:
        extras = [case.extras for case in plan if case.view == view]
        for finding in FINDINGS:
            assert 0.3 < np.mean([each.findings[finding] for each in extras]) < 0.5
    for output in ("finding", "rim"):
        assert 0.15 < np.mean([output not in case.extras.stated for case in plan]) < 0.25
    counts = count_cases(plan)
    assert counts["findings"] == {name: sum(case.extras.findings[name] for case in plan) for name in FINDINGS}
    assert counts["images"]["without rim"] == sum("rim" not in case.extras.stated for case in plan)


@pytest.mark.parametrize("level", LEVEL_VIEW)
def test_each_finding_is_to_be_seen_in_every_plane(level: str) -> None:
    size, dark, bright = 320, [], []
    for seed in range(6):
        effusion, lead = (
            render(Case(level, extras=extras), size, np.random.default_rng(seed))
            for extras in (replace(BARE, effusion=0.05), replace(BARE, lead=True))
        )
        rim = inside(effusion, effusion.heart.regions[0].points) & ~inside(effusion, effusion.heart.regions[1].points)
        dark.append(contrast(effusion, grown(rim, -2), grown(rim, 6) & ~grown(rim, 1)))
        way = np.zeros((size, size), np.uint8)
        cv2.polylines(way, [np.round(lead.pose.points(lead.heart.lines[-1].points)).astype(int)], False, 255)
        bright.append(contrast(lead, way > 0, grown(way > 0, 9) & ~grown(way > 0, 4)))
    assert max(dark) < 0.7, dark
    assert min(bright) > 3, bright


@pytest.mark.parametrize("level", LEVEL_VIEW)
def test_a_heart_without_findings_is_that_of_the_demo_set(level: str) -> None:
    plain, bare = (render(Case(level, extras=extras), 160, np.random.default_rng(4)) for extras in (None, BARE))
    assert np.array_equal(plain.image, bare.image)


def test_the_rim_is_as_wide_as_it_is_said() -> None:
    limits = yaml.safe_load((REPOSITORY / "data" / "heart-outputs.yaml").read_text())["image_outputs"]["rim"]["range"]
    for seed, effusion in enumerate((0.02, 0.05, 0.09)):
        extras = replace(BARE, effusion=effusion)
        assert limits[0] < round(extras.rim, 1) <= limits[1]
        drawn = render(Case("a4c", extras=extras), 320, np.random.default_rng(seed))
        rim, heart = (region.points for region in drawn.heart.regions[:2])
        widths = np.hypot(*(rim - heart).T) * HEART_UNIT
        assert widths.mean() == pytest.approx(extras.rim, rel=0.1) and widths.max() < 1.5 * widths.mean()


def test_label_lines_say_what_is_drawn_and_leave_out_what_is_not_stated() -> None:
    extras = replace(BARE, effusion=0.05, stated=("finding", "rim"))
    nothing = np.zeros((0, 4))
    assert label_text(Case("a4c", extras=extras), nothing, 96) == "finding: 1 0\nrim: 7.5\n\n0 0 1\n"
    extras = replace(BARE, lead=True, stated=("finding",))
    assert label_text(Case("a4c", extras=extras), nothing, 96) == "finding: 0 1\n\n0 0 1\n"
    assert label_text(Case("a4c", extras=BARE), nothing, 96) == "0 0 1\n"


@pytest.mark.parametrize("outputs", [False, True])
def test_the_bytes_depend_on_the_seed_alone(tmp_path: Path, outputs: bool) -> None:
    small = replace(SMALL, outputs=outputs)
    assert generate(tmp_path / "a", small, workers=1)
    assert generate(tmp_path / "b", small, workers=4)
    assert generate(tmp_path / "c", replace(small, seed=6))
    a, b, c = (files(tmp_path / name) for name in "abc")
    assert a == b
    images = [name for name in a if name.endswith(".jpg")]
    assert len(images) == 12 and all(a[name] != c[name] for name in images)
    assert len({a[name] for name in images}) == 12


def test_folder_holds_an_image_and_a_joint_label_for_each_number(tmp_path: Path) -> None:
    root = tmp_path / "new" / "set"
    generate(root, SMALL)
    for split, plan in plans(SMALL).items():
        for index, case in enumerate(plan):
            image = cv2.imread(str(root / "images" / split / f"{split}_{index:05d}.jpg"))
            assert image.shape == (96, 96, 3)
            text = (root / "labels" / split / f"{split}_{index:05d}.txt").read_text()
            record = parse_label_text(text, len(JETS), len(VIEWS))
            assert tuple(JETS[box.class_index] for box in record.boxes) == case.jets
            assert record.image_class == (VIEWS.index(case.view) if case.view else None)
            boxes = np.array([box[1:] for box in record.boxes]).reshape(-1, 4)
            expected = draw(case, SMALL, split, index).boxes / 96
            corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
            np.testing.assert_allclose(corners, expected, atol=2e-6)
    described = json.loads((root / MANIFEST).read_text())
    assert described["settings"] == {"train": 9, "val": 3, "seed": 5, "size": 96}
    assert [path.name for path in root.parent.iterdir()] == ["set"]


def test_an_unlabelled_image_has_boxes_but_no_view_line() -> None:
    text = label_text(Case("plax", ("AR",), labelled=False), np.array([[0, 24, 48, 96]]), 96)
    assert text == "0 0.250000 0.625000 0.500000 0.750000\n"
    assert label_text(Case("a4c"), np.zeros((0, 4)), 96) == "0 0 1\n"
    assert label_text(Case("a4c", ("TR",)), np.array([[0, 0, 96, 96]]), 96).splitlines()[1:] == ["", "0 0 1"]


def test_a_complete_set_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "set"
    assert generate(root, SMALL)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert not generate(root, SMALL)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_an_error_halfway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def failing(*args: object) -> object:
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return draw(*args)

    monkeypatch.setattr("gradnorm_demo.dataset.draw", failing)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path / "set", SMALL, workers=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_run_never_looks_complete(tmp_path: Path) -> None:
    root = tmp_path / "set"
    code = f"from gradnorm_demo import main; main(['--root', {str(root)!r}, '--workers', '1'])"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".set.*.partial/images/train/*.jpg")):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not root.exists()
    assert generate(root, SMALL)
    assert (root / MANIFEST).is_file()


def test_other_peoples_folders_and_other_sets_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (root / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="not a generated demo set; move it away or choose another --root"):
            generate(root, SMALL, overwrite=overwrite)
    assert (root / "thesis.txt").read_text() == "years of work"
    (root / "thesis.txt").unlink()
    assert generate(root, SMALL)  # an empty folder is taken
    other = Settings(train=2, val=1, size=96)
    with pytest.raises(FileExistsError, match="made with .*'train': 9.*--overwrite replaces it"):
        generate(root, other)
    assert generate(root, other, overwrite=True)
    assert len(list(root.glob("images/*/*.jpg"))) == 3
    (root / "images" / "train" / "train_00001.jpg").unlink()
    with pytest.raises(FileExistsError, match="images are missing"):
        generate(root, other)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train", "0"], "train is 0; it must be from 1"),
        (["--size", "20"], "size is 20; it must be from 96"),
        (["--seed", "-1"], "seed is -1; it must be from 0"),
        (["--workers", "-2"], "workers is -2"),
    ],
)
def test_bad_flags_end_with_one_message(tmp_path: Path, flags: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        gradnorm_demo.main(["--root", str(tmp_path / "set"), *flags])
    assert list(tmp_path.iterdir()) == []


def test_command_prints_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--root", str(tmp_path / "set"), "--train", "4", "--val", "2", "--size", "96"]
    gradnorm_demo.main(flags)
    assert "generated" in capsys.readouterr().out
    gradnorm_demo.main(flags)
    out = capsys.readouterr().out
    assert "already complete" in out and "train: images all 4" in out and "val: images all 2" in out


@pytest.mark.parametrize("name", ["joint.yaml", "heart-outputs.yaml"])
def test_data_yaml_makes_the_set_through_upstreams_hook(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = yaml.safe_load((REPOSITORY / "data" / name).read_text())
    assert tuple(description["names"].values()) == JETS
    assert tuple(description["classification_names"].values()) == VIEWS
    monkeypatch.setattr(gradnorm_demo, "Settings", lambda *given: Settings(*(given or (14, 2, 0, 96))))
    description["path"] = tmp_path / "set"  # upstream's check_dataset puts the resolved path here
    exec(description["download"], {"yaml": description})
    older = description["download"].replace("import gradnorm_demo as phantom", "from gradnorm_plugin.data import phantom")
    assert older != description["download"]
    exec(older, {"yaml": description})  # the set is complete: another one would be an error
    for split, count in (("train", 14), ("val", 2)):
        description[split] = str(description["path"] / description[split])
        assert len(list(Path(description[split]).iterdir())) == count
    plan, scan = plans(Settings(14, 2, 0, 96, name == "heart-outputs.yaml"))["train"], check_labels(description)["train"]
    assert [output.name for output in scan.bounds[1]] == ["class", *(("finding", "rim") if plan[0].extras else ())]
    if plan[0].extras:
        for case, finding, rim in zip(plan, scan.targets["finding"], scan.targets["rim"], strict=True):
            assert np.isnan(rim) == ("rim" not in case.extras.stated)
            stated = "finding" in case.extras.stated
            np.testing.assert_array_equal(finding, list(case.extras.findings.values()) if stated else [np.nan] * len(FINDINGS))
        records = [
            parse_label_text(Path(file).read_text(), None, 0, rules=label_rules(image_outputs(description), len(JETS)))
            for file in scan.label_files
        ]
        assert [VIEWS.index(case.view) for case in plan] == [record.image_class for record in records]
