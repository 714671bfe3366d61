"""The kinds of image outputs: descriptions, label lines, losses, figures; by hand, by scikit-learn, and for any input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    r2_score,
)
from torch.nn import functional as F

from gradnorm_plugin.labels import LabelError, LabelRecord, LabelRules, parse_label_text, read_label_file, write_label_file
from gradnorm_plugin.outputs import (
    Classes,
    LabelSet,
    OutputError,
    Value,
    activate,
    class_output,
    describe_outputs,
    label_rules,
    read_outputs,
    split,
    the_classes,
)

DESCRIPTIONS = {
    "view": {"classes": ["PSAX", "PLAX", "A4C"]},
    "finding": {"labels": ["effusion", "calcification"]},
    "ef": {"value": "percent", "range": [0, 100]},
}
OUTPUTS = read_outputs(DESCRIPTIONS)
VIEW, FINDING, EF = OUTPUTS
RULES = LabelRules(5, 3, "view", OUTPUTS)


def test_descriptions_are_read_and_given_back():
    assert OUTPUTS == (
        Classes("view", ("PSAX", "PLAX", "A4C")),
        LabelSet("finding", ("effusion", "calcification")),
        Value("ef", "percent", 0.0, 100.0),
    )
    assert read_outputs(describe_outputs(OUTPUTS)) == OUTPUTS
    assert [output.width for output in OUTPUTS] == [3, 2, 1]
    assert the_classes(OUTPUTS) is VIEW and the_classes((FINDING, EF)) is None and the_classes((VIEW, VIEW)) is None


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        ({}, "write a line for each"),
        ({"view": ["A", "B"]}, "write exactly one of `classes`, `labels`, `value`"),
        ({"view": {"classes": ["A"], "labels": ["B"]}}, "write exactly one of"),
        ({"view": {"clases": ["A", "B"]}}, "write exactly one of"),
        ({"view": {"classes": ["A", "A"]}}, "has a name twice"),
        ({"view": {"classes": [1, 2]}}, "write a list of names"),
        ({"view": {"classes": ["A", "B"], "range": [0, 1]}}, "has the key `range`"),
        ({"ef": {"value": "percent"}}, "write .lowest, highest."),
        ({"ef": {"value": "percent", "range": [1, 0]}}, "write .lowest, highest."),
        ({"ef": {"value": "percent", "range": [0, float("inf")]}}, "write .lowest, highest."),
        ({"ef": {"value": 7, "range": [0, 1]}}, "write the unit"),
        ({"a view": {"classes": ["A", "B"]}}, "is no name of an image output"),
        ({"detection": {"classes": ["A", "B"]}}, "has a meaning of its own"),
        ({"obj": {"classes": ["A", "B"]}}, "has a meaning of its own"),  # its columns would be those of detection's losses
        ({"PR_curve": {"classes": ["A", "B"]}}, "has a meaning of its own"),  # as would its picture
        ({"type": {"classes": ["A", "B"]}}, "has a meaning of its own"),  # to PyTorch, which holds the heads by their names
        ({"class": {"labels": ["A", "B"]}}, "tells one of `classes`"),
        ({"ef": DESCRIPTIONS["ef"], "EF": DESCRIPTIONS["ef"]}, "differ in case alone"),
    ],
)
def test_a_wrong_description_is_told(descriptions, message):
    with pytest.raises(OutputError, match=message):
        read_outputs(descriptions)


def test_named_lines_stand_anywhere_and_may_be_missing():
    text = "view: 0 1 0\n2 0.5 0.5 0.1 0.1\n\n ef : 55.5\nfinding:1 0\n"
    record = parse_label_text(text, None, 0, rules=RULES)
    assert record.image_class == 1 and record.named == {"ef": (55.5,), "finding": (1.0, 0.0)}
    assert parse_label_text("ef: 3\n0 0 1\nfinding: 0 0", None, 0, rules=RULES).image_class == 2  # the last line without a name
    assert parse_label_text("2 0.5 0.5 0.1 0.1", None, 0, rules=RULES).named == {}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1\nview: 0 1", 2, "`view` has 3 classes: write 3 of plain 0 and 1 with exactly one 1"),
        ("view: 0 1 0\n0 0 1", 2, "`view: ...` gives as well"),
        ("fnd: 1 0", 1, "`fnd: 1 0` is of no image output of the data set; it has `finding: ...`, `ef: ...`"),
        ("finding: 1 2", 1, "`finding` has 2 labels: write a plain 0 or 1 for each"),
        ("finding: 1 0\n\nfinding: 1 0", 3, "a second line `finding: ...`"),
        ("ef: 101", 1, "outside its range 0 to 100"),
        ("ef: 5_0", 1, "is one number"),
        ("ef: nan", 1, "is one number"),
        ("ef:", 1, "is one number"),
        ("ef: 50\n9 0.5 0.5 0.1 0.1\nef: 101", 2, "outside names"),
        (": 1 0", 1, "is of no image output"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(text, line, message):
    with pytest.raises(LabelError, match=".") as caught:
        parse_label_text(text, None, 0, "x.txt", RULES)
    assert caught.value.line == line and message in caught.value.reason


def test_where_two_outputs_tell_a_class_both_lines_are_named():
    outputs = read_outputs({"view": {"classes": ["A", "B"]}, "probe": {"classes": ["C", "D"]}})
    rules = LabelRules(1, 0, None, outputs)
    assert parse_label_text("probe: 0 1\nview: 1 0", None, 0, rules=rules).named == {"probe": (1,), "view": (0,)}
    with pytest.raises(LabelError, match="without a name, where no one output tells a class: write `view: ...`, `probe: ...`"):
        parse_label_text("1 0", None, 0, rules=rules)


def test_that_of_classification_names_needs_no_name_beside_any_others():
    outputs = (class_output(["A", "B"]), *read_outputs({"probe": {"classes": ["C", "D"]}}))
    record = parse_label_text("probe: 0 1\n1 0", None, 0, rules=label_rules(outputs))
    assert record.image_class == 0 and record.named == {"probe": (1,)}


finite_floats = st.floats(0, 100, allow_nan=False)
records = st.builds(
    LabelRecord,
    image_class=st.none() | st.integers(0, 2),
    named=st.fixed_dictionaries(
        {},
        optional={"finding": st.tuples(*[st.sampled_from([0.0, 1.0])] * 2), "ef": st.tuples(finite_floats)},
    ),
)


@given(record=records)
def test_what_is_written_is_read_back(record, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "named.txt"
    write_label_file(path, record, None, 0, RULES)
    assert read_label_file(path, None, 0, RULES) == record
    with pytest.raises(LabelError, match="is no image output"):
        write_label_file(path, LabelRecord(named={"mood": (1.0,)}), None, 0, RULES)


def test_targets_tell_which_images_are_labelled():
    assert VIEW.targets([None, (2,)]).tolist() == [-1, 2]
    assert FINDING.targets([(1.0, 0.0), None])[0].tolist() == [1, 0]
    assert EF.targets([]).shape == (0,) and FINDING.targets([]).shape == (0, 2)
    for output, label in ((VIEW, (1,)), (FINDING, (0.0, 1.0)), (EF, (3.0,))):
        targets = output.targets([label, None])
        assert output.known(targets).tolist() == [True, False]
        assert output.known(torch.from_numpy(targets)).tolist() == [True, False]
        assert output.agrees(targets[0], targets).tolist() == [True, False]


def test_images_of_nearly_the_same_number_share_a_mosaic():
    targets = EF.targets([(50.0,), (54.0,), (57.0,)])
    assert EF.agrees(targets[0], targets).tolist() == [True, True, False]


def draw(count: int, size: int, seed: int) -> tuple[np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, (count, size)), rng


def repeated(times: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(times)), times)


def test_figures_of_classes_are_scikit_learns_in_every_draw():
    times, rng = draw(20, 30, 0)
    answers, targets = rng.dirichlet((1, 1, 1), 30), rng.integers(0, 3, 30)
    found = VIEW.measure(answers, targets, times)
    for index, of_draw in enumerate(times):
        chosen = repeated(of_draw)
        truth, predicted = targets[chosen], answers.argmax(1)[chosen]
        assert found["accuracy"][index] == pytest.approx(accuracy_score(truth, predicted))
        assert found["balanced_accuracy"][index] == pytest.approx(balanced_accuracy_score(truth, predicted))
        macro = f1_score(truth, predicted, average="macro", labels=np.unique(truth), zero_division=0)
        assert found["macro_F1"][index] == pytest.approx(macro)


def test_figures_of_labels_are_scikit_learns_in_every_draw():
    times, rng = draw(20, 30, 1)
    answers, targets = rng.random((30, 2)).round(1), rng.integers(0, 2, (30, 2)).astype(np.float32)  # rounded: with ties
    found = FINDING.measure(answers, targets, times)
    for index, of_draw in enumerate(times):
        chosen = repeated(of_draw)
        truth, values = targets[chosen], answers[chosen]
        assert found["macro_F1"][index] == pytest.approx(f1_score(truth, values >= 0.5, average="macro", zero_division=0))
        assert found["mean_AP"][index] == pytest.approx(average_precision_score(truth, values, average="macro"))


def test_figures_of_a_value_are_scikit_learns_in_every_draw():
    times, rng = draw(20, 30, 2)
    answers, targets = rng.random((30, 1)) * 100, (rng.random(30) * 100).astype(np.float32)
    found = EF.measure(answers, targets, times)
    for index, of_draw in enumerate(times):
        chosen = repeated(of_draw)
        assert found["MAE"][index] == pytest.approx(mean_absolute_error(targets[chosen], answers[chosen]))
        assert found["R2"][index] == pytest.approx(r2_score(targets[chosen], answers[chosen]))


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.kind)
def test_figures_without_any_label_are_nan(output):
    nothing = output.measure(np.zeros((0, output.width)), output.targets([]), np.zeros((1, 0), dtype=np.int64))
    assert set(nothing) == set(output.figures) and output.headline in output.figures
    assert all(np.isnan(value).all() and value.shape == (1,) for value in nothing.values())


def test_a_label_that_no_image_has_is_left_out_of_the_means():
    found = FINDING.measure(np.array([[0.9, 0.9]]), np.array([[1.0, 0.0]], dtype=np.float32), np.ones((1, 1), dtype=np.int64))
    assert found["macro_F1"].tolist() == [1.0] and found["mean_AP"].tolist() == [1.0]


def test_losses_by_hand():
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    targets = torch.tensor([0, 2])
    assert VIEW.loss(logits, targets, None, 0.0) == F.cross_entropy(logits, targets)
    labels = torch.tensor([[1.0, 0.0]])
    expected = (-torch.sigmoid(torch.tensor(2.0)).log() * 3 - torch.sigmoid(torch.tensor(-1.0)).log()) / 2
    torch.testing.assert_close(FINDING.loss(torch.tensor([[2.0, 1.0]]), labels, torch.tensor([3.0, 1.0]), 0.0), expected)
    # 0.5 of the range against 0.9: an error of 0.4, less half of the width of the quadratic part
    torch.testing.assert_close(EF.loss(torch.zeros(1, 1), torch.tensor([90.0]), None, 0.0), torch.tensor(0.35))
    assert EF.activate(torch.zeros(1, 1)).item() == 50.0


@given(logits=st.lists(st.floats(-20, 20), min_size=6, max_size=6))
def test_every_answer_is_a_label_that_can_be_written(logits):
    answers = activate(OUTPUTS, torch.tensor([logits], dtype=torch.float32))
    for output, answer in zip(OUTPUTS, split(OUTPUTS, answers.numpy()), strict=True):
        target = output.decide(answer[0])
        assert output.parse(output.format(target).split()) == pytest.approx(target)
        assert output.say(answer[0]) and output.as_data(answer[0]) and output.name in output.cells(answer[0])


def test_what_is_rare_counts_as_much():
    weights = VIEW.balance(VIEW.targets([(0,), (0,), (0,), (1,), None]))
    assert weights[0] * 3 == pytest.approx(float(weights[1])) and weights[2] == 1
    assert FINDING.balance(FINDING.targets([(1.0, 0.0), (0.0, 0.0), (0.0, 0.0)])).tolist() == [2, 1]
    assert EF.balance(EF.targets([(1.0,)])) is None
