"""The targets of a batch: shapes checked, carried through workers and pinning."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

from gradnorm_plugin.data import DescriptionError, JointTargets, classification_names

BOXES = torch.tensor([[0, 2, 0.5, 0.5, 0.1, 0.2], [2, 0, 0.25, 0.5, 0.1, 0.2]])
CLASSES = torch.tensor([1, -1, 0])


def same(a: JointTargets, b: JointTargets) -> bool:
    return torch.equal(a.boxes, b.boxes) and torch.equal(a.classes, b.classes)


def test_shape_is_that_of_the_boxes() -> None:
    targets = JointTargets(BOXES, CLASSES)
    assert targets.shape == (2, 6)
    assert repr(targets) == "JointTargets(boxes=(2, 6), classes=(3,), device=cpu)"
    assert JointTargets(torch.zeros(0, 6), torch.full((2,), -1)).shape[0] == 0


@pytest.mark.parametrize(
    ("boxes", "classes", "error", "message"),
    [
        ([[0.0] * 6], CLASSES, TypeError, "`boxes` of JointTargets must be a tensor, found list"),
        (BOXES, [1, 2], TypeError, "`classes` of JointTargets must be a tensor, found list"),
        (BOXES[:, :5], CLASSES, ValueError, r"found torch.float32 of shape \(2, 5\)"),
        (BOXES.long(), CLASSES, ValueError, r"must be floating point of shape \(n, 6\).*found torch.int64"),
        (BOXES, CLASSES.float(), ValueError, r"must be int64 of shape \(B,\).*found torch.float32"),
        (BOXES, CLASSES[None], ValueError, r"found torch.int64 of shape \(1, 3\)"),
        (BOXES, CLASSES.to("meta"), ValueError, r"different devices \(cpu, meta\)"),
        (BOXES, CLASSES[:2], ValueError, "name images 0 to 2, but `classes` has 2 images"),
        (BOXES, torch.tensor([1, -2, 0]), ValueError, "has -2: use -1 for an image without a class"),
    ],
)
def test_what_does_not_fit_is_refused(boxes: Any, classes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        JointTargets(boxes, classes)


def test_to_moves_both() -> None:
    targets = JointTargets(BOXES, CLASSES)
    moved = targets.to(torch.device("meta"), non_blocking=True)
    assert moved.boxes.is_meta and moved.classes.is_meta and moved.device.type == "meta"
    assert same(targets.to("cpu"), targets)


def test_pickle() -> None:
    targets = JointTargets(BOXES, CLASSES)
    assert same(pickle.loads(pickle.dumps(targets)), targets)


def collate(batch: list[int]) -> tuple[Tensor, JointTargets]:
    return torch.tensor(batch), JointTargets(BOXES, CLASSES)


def test_worker_processes() -> None:
    for numbers, targets in DataLoader([0, 1, 2, 3], batch_size=2, num_workers=2, collate_fn=collate):
        assert len(numbers) == 2
        assert same(targets, JointTargets(BOXES, CLASSES))


def test_pytorch_asks_the_object_to_pin_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pinning thread of a DataLoader calls; page-locked memory itself needs an accelerator (test below)."""
    pinned = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
    batch = pin_memory([BOXES, JointTargets(BOXES, CLASSES)])
    assert isinstance(batch[1], JointTargets) and same(batch[1], JointTargets(BOXES, CLASSES))
    assert len(pinned) == 3 and batch[1].boxes is not BOXES


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs CUDA")
def test_pinned_on_cuda() -> None:
    for _, targets in DataLoader([0, 1, 2, 3], batch_size=2, num_workers=1, collate_fn=collate, pin_memory=True):
        assert targets.boxes.is_pinned() and targets.classes.is_pinned()
        assert same(targets.to("cuda", non_blocking=True).to("cpu"), JointTargets(BOXES, CLASSES))


@pytest.mark.parametrize("names", [["PSAX", "A4C"], {0: "PSAX", 1: "A4C"}, {1: "A4C", 0: "PSAX"}])
def test_classification_names(names: Any) -> None:
    found = classification_names({"classification_names": names})
    assert found == {0: "PSAX", 1: "A4C"} and list(found) == [0, 1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "has no `classification_names`: add"),
        ([], "has no `classification_names`: add"),
        ("PSAX", "is 'PSAX': write a list"),
        (3, "is 3: write a list"),
        ({1: "a", 2: "b"}, "is numbered 1, 2: number the classes 0, 1, 2"),
        ({0: "a", 2: "b"}, "is numbered 0, 2"),
        ({"a": 0, "b": 1}, "is numbered a, b"),
        ({False: "a", True: "b"}, "is numbered False, True"),
        (["yes", True], "has True at 1, which is no name: quote it"),
        (["a", " "], "has ' ' at 1"),
        (["a", "b", "a"], r"has a name twice \(a, b, a\)"),
    ],
)
def test_wrong_classification_names(names: Any, message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        classification_names({"classification_names": names})


def test_absent_classification_names() -> None:
    with pytest.raises(DescriptionError, match="has no `classification_names`"):
        classification_names({"names": {0: "car"}})
