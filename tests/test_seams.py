"""Where this package meets upstream: if upstream moves, these tests say which name, which call, in which file and line.

Nothing is trained here. Names and signatures are looked up; what upstream does with them is read from its source.
"""

from __future__ import annotations

import ast
import csv
import inspect
import logging
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import gradnorm_plugin
from gradnorm_plugin import FixedWeights
from gradnorm_plugin.data.dataset import JointDataset
from gradnorm_plugin.evaluation.recording import validate
from gradnorm_plugin.loss import GradNormLoss
from gradnorm_plugin.model.joint import JointDetectionModel
from gradnorm_plugin.outputs import class_output
from gradnorm_plugin.training.hooks import JointCallbacks
from gradnorm_plugin.training.joint_run import JointRun
from gradnorm_plugin.training.option_files import tasks_of
from gradnorm_plugin.training.seams import Hook, SeparateClip
from gradnorm_plugin.training.tables import EpochTable
from gradnorm_plugin.upstream.gateway import upstream

PACKAGE = Path(gradnorm_plugin.__file__).parent
HOOKS = [name for name in vars(Hook) if name.startswith("on_")]


@cache
def source(module: str) -> ast.Module:
    return ast.parse(Path(upstream(module).__file__).read_text(encoding="utf-8"))


def function(module: str, *path: str) -> ast.AST:
    """The definition of a function, or of a method by its class and name."""
    node: ast.AST = source(module)
    for name in path:
        found = [n for n in ast.iter_child_nodes(node) if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == name]
        assert found, f"{upstream(module).__file__} has no {'.'.join(path)}"
        node = found[0]
    return node


def calls(where: ast.AST, name: str) -> list[ast.Call]:
    """Every call of `name` as upstream writes it ("Model", "torch.nn.utils.clip_grad_norm_"), in the order of the source."""
    found = [node for node in ast.walk(where) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]
    assert found, f"upstream no longer calls {name} in {getattr(where, 'name', 'the module')}"
    return sorted(found, key=lambda call: call.lineno)


def keywords(call: ast.Call) -> set[str | None]:
    return {keyword.arg for keyword in call.keywords}


def assert_fits(call: ast.Call, ours: Callable[..., Any], *, bound: bool = True) -> None:
    """Our function takes the arguments of upstream's call; `bound` if its `self` is filled by the instance."""
    arguments = [None] * (len(call.args) + bound)
    try:
        inspect.signature(ours).bind(*arguments, **dict.fromkeys(keywords(call)))
    except TypeError as error:
        pytest.fail(f"line {call.lineno} calls `{ast.unparse(call)}`, which {ours.__qualname__} does not take: {error}")


def uses_of_upstream() -> list[tuple[str, str, str]]:
    """(module, name, where) for every name of upstream's modules that the package reads or swaps."""
    found = []

    def module_of(node: ast.AST, names: dict[str, str]) -> str | None:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "upstream" and isinstance(node.args[0], ast.Constant):
            return node.args[0].value
        return names.get(node.id) if isinstance(node, ast.Name) else None

    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and (module := module_of(node.value, {})):
                names |= {target.id: module for target in node.targets if isinstance(target, ast.Name)}
        for node in ast.walk(tree):
            where = f"{file.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute) and (module := module_of(node.value, names)):
                found.append((module, node.attr, where))
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "swapped":
                module = module_of(node.args[0], names)
                found += [(module, keyword.arg, where) for keyword in node.keywords if module]
    return found


def test_every_name_that_the_package_uses_exists():
    found = uses_of_upstream()
    assert {module for module, _, _ in found} >= {
        "train", "val", "models.yolo", "utils.loss", "utils.general", "utils.dataloaders", "utils.callbacks", "utils.loggers",
        "utils.torch_utils", "utils.metrics", "utils.downloads",
    }  # fmt: skip
    missing = [f"{where} uses {module}.{name}" for module, name, where in found if not hasattr(upstream(module), name)]
    assert not missing, f"upstream in {upstream('train').__file__} has moved: {missing}"
    in_train = {name for module, name, _ in found if module == "train"}
    assert in_train == {
        "Model", "ComputeLoss", "create_dataloader", "validate", "fitness", "Loggers", "Callbacks", "check_dataset",
        "check_amp", "check_train_batch_size", "intersect_dicts", "labels_to_image_weights", "yaml",
        "main", "train", "print_mutation", "RANK", "LOCAL_RANK", "yaml_save",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("module", "name", "parameters"),
    [
        ("train", "main", ["opt", "callbacks"]),
        ("train", "parse_opt", []),
        ("val", "run", ["data", "batch_size", "imgsz", "half", "model", "single_cls", "dataloader", "save_dir", "plots",
                        "callbacks", "compute_loss"]),
        ("models.yolo", "DetectionModel", ["cfg", "ch", "nc", "anchors"]),
        ("models.yolo", "DetectionModel._forward_once", ["x", "profile", "visualize"]),
        ("models.yolo", "DetectionModel._forward_augment", ["x"]),
        ("utils.loss", "ComputeLoss", ["model"]),
        ("utils.loss", "ComputeLoss.__call__", ["p", "targets"]),
        ("utils.callbacks", "Callbacks.register_action", ["hook", "name", "callback"]),
        ("utils.callbacks", "Callbacks.run", ["hook", "args", "thread", "kwargs"]),
        ("utils.dataloaders", "create_dataloader", ["path", "imgsz", "batch_size", "stride", "augment", "quad", "prefix"]),
        ("utils.dataloaders", "LoadImagesAndLabels", ["path", "image_weights", "prefix"]),
        ("utils.dataloaders", "LoadImagesAndLabels.load_mosaic", ["index"]),
        ("utils.dataloaders", "LoadImagesAndLabels.collate_fn", ["batch"]),
        ("utils.general", "check_dataset", ["data", "autodownload"]),
        ("utils.general", "check_file", ["file"]),
        ("utils.general", "check_yaml", ["file"]),
        ("utils.general", "get_latest_run", []),
        ("utils.metrics", "fitness", ["x"]),
        ("utils.torch_utils", "de_parallel", ["model"]),
        ("utils.torch_utils", "initialize_weights", ["model"]),
        ("utils.downloads", "attempt_download", ["file"]),
    ],
)  # fmt: skip
def test_parameters(module, name, parameters):
    found: Any = upstream(module)
    for part in name.split("."):
        assert hasattr(found, part), f"{module} has no {name}"
        found = getattr(found, part)
    there = list(inspect.signature(found).parameters)
    missing = [parameter for parameter in parameters if parameter not in there]
    assert not missing, f"{module}.{name} has no {missing}: it takes {there}"


@pytest.mark.parametrize(
    ("name", "ours", "count"),
    [
        ("Model", JointRun.make_model, 2),
        ("create_dataloader", JointRun.make_loader, 2),
        ("ComputeLoss", JointRun.make_loss, 1),
        ("Loggers", JointRun.make_loggers, 1),
        ("fitness", JointRun.fitness, 1),
        ("intersect_dicts", JointRun.take_over, 1),
        ("check_dataset", JointRun.check_dataset, 1),
        ("torch.nn.utils.clip_grad_norm_", JointRun.clip_gradients, 1),
        ("torch.nn.utils.clip_grad_norm_", SeparateClip.__call__, 1),
    ],
)
def test_what_stands_in_takes_upstreams_calls(name, ours, count):
    found = calls(function("train", "train"), name)
    assert len(found) == count, f"train.py calls {name} in lines {[call.lineno for call in found]}, expected {count} calls"
    for call in found:
        assert_fits(call, ours)


def test_what_stands_in_is_looked_up_where_it_is_put():
    """In `train`'s own namespace at each call: a name that became local, or another module's, would pass ours by."""
    code = upstream("train").train.__code__
    for name in (
        "Model",
        "ComputeLoss",
        "create_dataloader",
        "validate",
        "fitness",
        "Loggers",
        "check_dataset",
        "check_amp",
        "check_train_batch_size",
        "intersect_dicts",
        "labels_to_image_weights",
        "yaml",
    ):
        assert name in code.co_names and name not in code.co_varnames, f"train.train does not look up {name} in its module"
    assert "Callbacks" in upstream("train").main.__code__.co_names
    for imported in ("from torch.nn.utils", "import torch.nn.utils"):
        assert imported not in Path(upstream("train").__file__).read_text(encoding="utf-8")


def test_training_loader_is_the_one_that_augments():
    training, validation = calls(function("train", "train"), "create_dataloader")
    assert {"augment", "quad", "image_weights"} <= keywords(training) and "augment" not in keywords(validation)


def test_validation_is_called_with_the_names_that_ours_reads():
    for call in calls(function("train", "train"), "validate.run"):
        assert {"model", "dataloader", "save_dir", "plots", "compute_loss"} <= keywords(call), f"train.py:{call.lineno}"
        assert_fits(call, JointRun.validate)
        assert_fits(call, validate, bound=False)
        inspect.signature(upstream("val").run).bind(*call.args, **dict.fromkeys(keywords(call)))


def test_validation_hands_the_loss_what_it_takes():
    run = function("val", "run")
    (call,) = calls(run, "compute_loss")
    assert_fits(call, GradNormLoss.__call__)
    assert_fits(call, upstream("utils.loss").ComputeLoss.__call__)
    forward = ast.unparse(run)
    assert "preds, train_out = model(im)" in forward, "val.run no longer takes two outputs of the model"
    assert "for batch_i, (im, targets, paths, shapes) in enumerate(" in forward


def test_training_hands_the_loss_what_it_takes():
    (call,) = calls(function("train", "train"), "compute_loss")
    assert_fits(call, GradNormLoss.__call__)
    assert ast.unparse(call) == "compute_loss(pred, targets.to(device))"
    assert "targets.shape[0]" in ast.unparse(function("train", "train"))


def test_hooks_exist_and_are_called_as_ours_take_them():
    assert len(HOOKS) >= 4
    callbacks = upstream("utils.callbacks").Callbacks()
    by_hook: dict[str, list[ast.Call]] = {}
    for call in calls(function("train", "train"), "callbacks.run"):
        by_hook.setdefault(ast.literal_eval(call.args[0]), []).append(call)
    for hook in HOOKS:
        assert hook in callbacks.get_registered_actions(), f"upstream's callbacks have no {hook}"
        assert hook in by_hook, f"train.py no longer runs {hook}"
        for call in by_hook[hook]:
            without_name = ast.Call(func=call.func, args=call.args[1:], keywords=call.keywords, lineno=call.lineno, col_offset=0)
            assert_fits(without_name, getattr(Hook, hook))
            assert_fits(call, JointCallbacks.run)


@pytest.mark.parametrize(
    ("hook", "arguments"),
    [
        ("on_train_batch_end", "model, ni, imgs, targets, paths, list(mloss)"),
        ("on_fit_epoch_end", "log_vals, epoch, best_fitness, fi"),
        ("on_train_end", "last, best, epoch, results"),
    ],
)
def test_hooks_get_what_ours_understand_by_their_arguments(hook, arguments):
    found = [ast.unparse(call) for call in calls(function("train", "train"), "callbacks.run")]
    assert f"callbacks.run('{hook}', {arguments})" in found, [line for line in found if hook in line]


def test_hooks_fire_at_their_moment():
    """The batch's after its optimiser step; the epoch's after validation and before the checkpoint, which carries our state."""
    train = function("train", "train")
    line = {ast.literal_eval(c.args[0]): c.lineno for c in reversed(calls(train, "callbacks.run"))}  # the first of each
    backward, clip = calls(train, "scaler.scale(loss).backward")[0], calls(train, "torch.nn.utils.clip_grad_norm_")[0]
    save, validation = calls(train, "torch.save")[0], calls(train, "validate.run")[0]
    loggers, own = calls(train, "callbacks.register_action")[0], line["on_train_epoch_start"]
    order = [loggers.lineno, own, backward.lineno, clip.lineno, line["on_train_batch_end"], validation.lineno,
             calls(train, "fitness")[0].lineno, line["on_fit_epoch_end"], save.lineno, line["on_train_end"]]  # fmt: skip
    assert order == sorted(order)


@pytest.fixture
def loggers(tmp_path: Path) -> Any:
    """Upstream's loggers, only the CSV file active."""
    options = Namespace(noplots=True, evolve=None, resume=False)
    return upstream("utils.loggers").Loggers(tmp_path, "", options, {}, logging.getLogger("quiet"), include=("csv",))


def test_loggers_have_what_ours_read(loggers):
    for name in ("tb", "wandb", "clearml", "comet_logger", "save_dir"):
        assert hasattr(loggers, name), f"Loggers has no {name}"
    assert Path(loggers.save_dir).is_dir()


def test_columns_of_an_epoch_are_where_ours_reads_them(loggers):
    """`EpochTable` takes upstream's values by their position; upstream names these in `Loggers.keys`."""
    assert "log_vals = list(mloss) + list(results) + lr" in ast.unparse(function("train", "train"))
    outputs = (class_output(["a", "b"]),)
    criterion = Namespace(balancer=FixedWeights((1.0, 0.5)))
    run = Namespace(loggers=loggers, figures={}, outputs=outputs, tasks=tasks_of(outputs), criterion=criterion)
    values = [0.01 * (position + 1) for position in range(len(loggers.keys))]
    EpochTable(run).on_fit_epoch_end(values, 0, 0.0, 0.7)
    with (Path(loggers.save_dir) / "joint_results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    for ours, theirs in (
        ("train_box_loss", "train/box_loss"), ("train_obj_loss", "train/obj_loss"), ("train_cls_loss", "train/cls_loss"),
        ("precision", "metrics/precision"), ("recall", "metrics/recall"), ("mAP50", "metrics/mAP_0.5"),
        ("mAP50-95", "metrics/mAP_0.5:0.95"),
        ("val_box_loss", "val/box_loss"), ("val_obj_loss", "val/obj_loss"), ("val_cls_loss", "val/cls_loss"),
    ):  # fmt: skip
        assert float(row[ours]) == pytest.approx(values[loggers.keys.index(theirs)]), f"{ours} is not upstream's {theirs}"
    assert (row["detection_weight"], row["classification_weight"], row["fitness"]) == ("1", "0.5", "0.7")


def test_scalars_reach_the_other_loggers_as_upstreams_do():
    """W&B, ClearML and Comet are no dependencies: what is called on them is what upstream calls on them."""
    at_epoch_end = function("utils.loggers", "Loggers", "on_fit_epoch_end")
    for name, arguments in (
        ("self.tb.add_scalar", 3),
        ("self.clearml.task.get_logger().report_scalar", 4),
        ("self.wandb.log", 1),
    ):
        found = [(len(call.args), keywords(call)) for call in calls(at_epoch_end, name)]
        assert (arguments, set()) in found, f"{name} is called with {found}"
    comet = ast.parse((Path(upstream("utils.loggers").__file__).parent / "comet" / "__init__.py").read_text(encoding="utf-8"))
    (log_metrics,) = [n for n in ast.walk(comet) if isinstance(n, ast.FunctionDef) and n.name == "log_metrics"]
    assert [a.arg for a in log_metrics.args.args] == ["self", "log_dict"] and log_metrics.args.kwarg


@pytest.fixture(scope="module")
def plain_model() -> Any:
    torch.manual_seed(0)
    model = upstream("models.yolo").DetectionModel(upstream("utils.general").check_yaml("yolov5n.yaml"), nc=2)
    model.hyp = {"box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0, "obj_pw": 1.0, "anchor_t": 4.0, "fl_gamma": 0.0}
    return model


def test_detection_layer_is_last_and_has_its_export_switch(plain_model):
    detect = plain_model.model[-1]
    assert type(detect) is upstream("models.yolo").Detect and detect.export is False
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        predictions, layers = plain_model.eval()(images)
        detect.export = True
        try:
            (exported,) = plain_model(images)
        finally:
            detect.export = False
    assert torch.equal(exported, predictions) and len(layers) == detect.nl


def test_detection_loss_and_its_three_items(plain_model):
    boxes = torch.tensor([[0.0, 1.0, 0.5, 0.5, 0.3, 0.4]])
    loss, items = upstream("utils.loss").ComputeLoss(plain_model)(plain_model.train()(torch.rand(2, 3, 64, 64)), boxes)
    assert loss.shape == (1,) and loss.requires_grad
    assert items.shape == (3,) and not items.requires_grad
    assert loss.item() == pytest.approx(2 * items.sum().item())  # scaled by the batch size, as ours scales the classification


def test_the_models_of_all_tasks_share_the_pass_that_ours_extends():
    """`forward` goes through `_forward_once`, which the head listens to, with test-time augmentation too."""
    for path in (("DetectionModel", "forward"), ("DetectionModel", "_forward_augment")):
        for call in calls(function("models.yolo", *path), "self._forward_once"):
            assert_fits(call, JointDetectionModel._forward_once)
    assert issubclass(upstream("train").Model, upstream("models.yolo").DetectionModel)
    assert "isinstance(cfg, dict)" in ast.unparse(function("models.yolo", "DetectionModel", "__init__"))


def test_data_set_is_read_where_ours_changes_it():
    dataset = upstream("utils.dataloaders").LoadImagesAndLabels
    create = upstream("utils.dataloaders").create_dataloader
    assert {"LoadImagesAndLabels", "collate_fn"} <= set(create.__code__.co_names)
    constructor = ast.unparse(function("utils.dataloaders", "LoadImagesAndLabels", "__init__"))
    for assigned in ("self.label_files =", "self.im_files =", "self.indices ="):
        assert assigned in constructor, f"LoadImagesAndLabels sets no {assigned}"
    assert "self.cache_labels(" in constructor and hasattr(dataset, "cache_version")
    item = function("utils.dataloaders", "LoadImagesAndLabels", "__getitem__")
    assert "self.indices[index]" in ast.unparse(item)
    for call in calls(item, "self.load_mosaic"):
        assert_fits(call, JointDataset.load_mosaic)
    mosaic = ast.unparse(function("utils.dataloaders", "LoadImagesAndLabels", "load_mosaic"))
    assert "random.choices(self.indices" in mosaic, "load_mosaic no longer draws its companions from self.indices"
    assert isinstance(inspect.getattr_static(dataset, "collate_fn"), staticmethod)
    items = [(torch.full((3, 8, 8), i), torch.ones(i + 1, 6), f"{i}.jpg", None) for i in range(2)]
    images, boxes, paths, shapes = dataset.collate_fn(items)
    assert images.shape == (2, 3, 8, 8) and boxes[:, 0].tolist() == [0, 1, 1] and paths == ("0.jpg", "1.jpg") and len(shapes) == 2


def test_plain_functions_give_what_ours_relies_on():
    assert upstream("train").RANK in {-1, 0}
    assert upstream("utils.general").LOGGER.info
    wrapped = torch.nn.DataParallel(torch.nn.Linear(1, 1))
    assert upstream("utils.torch_utils").de_parallel(wrapped) is wrapped.module
    results = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.1, 0.1, 0.1]]).numpy()
    assert upstream("utils.metrics").fitness(results) == pytest.approx([0.1 * 0.7 + 0.9 * 0.6])
    assert upstream("utils.general").check_file("") == ""
