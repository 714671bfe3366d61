"""The one door to upstream YOLOv5: finds the checkout, imports its modules, swaps names in them for the length of a `with`.

No other module of this package touches `sys.path` or imports `models`, `utils`, `train` or `val` by itself.

Other projects have packages called `utils` and `models`, too. If one of upstream's names belongs to another package, or would on
the next import, upstream is loaded apart: `sys.path` and the other package stay as they are; upstream's modules stand in
`sys.modules` under their own names where those are free (pickles find their classes by them), else below `_APART`. They still see
each other, also in imports within functions: each has an `__import__` of its own in the `__builtins__` that Python takes it from.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import gc
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec, resolve_name
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any

from gradnorm_plugin.upstream.checkout import CheckoutError, find_checkout, is_yolov5

_ABSENT = object()
_NAMES = frozenset({"models", "utils", "train", "val", "detect", "export", "segment", "classify", "hubconf"})
"""Modules of upstream that import each other."""
_APART = "gradnorm_plugin.upstream.yolov5"
"""Stands before the name of a module whose own name another package has."""
if hasattr(os, "register_at_fork"):
    # Upstream's processes that read images are forks. Were one to collect an ONNX Runtime session that is garbage of this
    # process, it would wait for ever for the session's threads, which no fork has.
    os.register_at_fork(after_in_child=gc.freeze)
_loading = RLock()  # as Python's own import locks: no thread gets a module that another one is still executing


def upstream_root() -> Path:
    """The folder of the YOLOv5 in use: the one already imported (its own scripts were started), else the checkout.

    Raises:
        CheckoutError: if there is none, or it is not patched.
    """
    for name in ("models", f"{_APART}.models"):
        for entry in getattr(sys.modules.get(name), "__path__", []):
            root = Path(entry).resolve().parent
            if is_yolov5(root):
                return root
    return find_checkout()


def upstream(name: str) -> ModuleType:
    """Upstream's module `name` ("train", "models.yolo", "utils.loss", ...), imported from the checkout and nowhere else.

    Raises:
        CheckoutError: if the checkout is missing or not patched.
        ModuleNotFoundError: if it has no such module.
    """
    root = upstream_root()
    try:
        if _is_apart(root):
            return _load(name, root)
        if sys.path[:1] != [str(root)]:
            sys.path.insert(0, str(root))
        try:
            top = name.partition(".")[0]
            return _load(name, root) if _belongs_to_another(top, root) else importlib.import_module(name)
        finally:
            if str(root) in sys.path[1:]:  # it was there already, and stays where it was
                sys.path.remove(str(root))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in _NAMES:
            raise
        raise CheckoutError(
            f"YOLOv5 in {root} needs the package {package}, which is not installed: pip install {package}"
        ) from None


def drawing(name: str) -> Any:
    """What YOLOv5 draws with (`Annotator`, `colors`, `save_one_box`): of `utils.plots`, or later the package ultralytics."""
    plots = upstream("utils.plots")
    return getattr(plots if hasattr(plots, name) else importlib.import_module("ultralytics.utils.plotting"), name)


def bar_format() -> str:
    """How YOLOv5's progress bars look; later versions leave that to the package ultralytics."""
    return getattr(upstream("utils.general"), "TQDM_BAR_FORMAT", "{l_bar}{bar:10}{r_bar}")


def openvino_networks(backend: Any) -> tuple[Any, Any]:
    """The network that a `DetectMultiBackend` for OpenVINO has read, and the same compiled: the names of the two have changed."""
    names = ("network", "executable_network") if hasattr(backend, "executable_network") else ("ov_model", "ov_compiled_model")
    return getattr(backend, names[0]), getattr(backend, names[1])


def put_first() -> None:
    """Let upstream's names mean upstream: for a process that runs one of our commands and has no other packages."""
    with suppress(CheckoutError):  # whoever needs it will say so
        sys.path.insert(0, str(upstream_root()))


def _is_apart(root: Path) -> bool:
    """Whether upstream's modules keep away from the common names; stays as it is once one is loaded."""
    if any(name.startswith(f"{_APART}.") for name in tuple(sys.modules)):
        return True
    if any(name in sys.modules and not _belongs_to_another(name, root) for name in ("models", "utils")):
        return False
    return any(_belongs_to_another(name, root) for name in _NAMES)


def _belongs_to_another(name: str, root: Path) -> bool:
    """Whether the module `name` that is imported, or would be by the next import, is not the one in `root`."""
    module = sys.modules.get(name)
    if module is not None:
        places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    else:
        spec = _found(name)
        places = [spec.origin, *(spec.submodule_search_locations or [])] if spec else [str(root / name)]
    return not any(root in Path(place).resolve().parents for place in places if place)


def _found(name: str) -> ModuleSpec | None:
    """What `import name` would find, without the import of its parents that `importlib.util.find_spec` does."""
    parent = name.rpartition(".")[0]
    path: Sequence[str] | None = None
    if parent:
        holder = sys.modules.get(parent) or _found(parent)
        path = getattr(holder, "__path__", None) or getattr(holder, "submodule_search_locations", None)
        if path is None:
            return None
    specs = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in specs if spec), None)


def _load(name: str, root: Path) -> ModuleType:
    """Upstream's module `name`, as it is loaded already or else apart."""
    with _loading:
        for key in (f"{_APART}.{name}", name):
            if key in sys.modules and not _belongs_to_another(key, root):
                return sys.modules[key]
        parent, _, child = name.rpartition(".")
        holder = _load(parent, root) if parent else None
        spec = PathFinder.find_spec(name, getattr(holder, "__path__", []) if holder else [str(root)])
        if spec is None:
            raise ModuleNotFoundError(f"YOLOv5 in {root} has no module {name}", name=name)
        module = module_from_spec(spec)
        if spec.submodule_search_locations:
            module.__path__ = list(spec.submodule_search_locations)  # of a folder without __init__.py it would follow sys.path
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": partial(_import, root)}
        keys = [f"{_APART}.{name}"] if _belongs_to_another(name, root) else [f"{_APART}.{name}", name]
        path = list(sys.path)
        sys.modules.update(dict.fromkeys(keys, module))
        try:
            if spec.loader:
                spec.loader.exec_module(module)
        except BaseException:
            for key in keys:
                sys.modules.pop(key, None)
            raise
        finally:
            if str(root) not in path and str(root) in sys.path:  # upstream's scripts append it
                sys.path.remove(str(root))
        if holder:
            setattr(holder, child, module)
        return module


def _import(
    root: Path,
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> Any:
    """`__import__` of upstream's modules that are loaded apart: their own names mean each other."""
    full = resolve_name("." * level + name, (globals or {}).get("__package__")) if level else name
    top = full.partition(".")[0]
    if top not in _NAMES:
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    module = _load(full, root)
    if not fromlist:
        return _load(top, root)
    if hasattr(module, "__path__"):
        for item in fromlist:
            if item != "*" and not hasattr(module, item):
                with suppress(ModuleNotFoundError):  # the import statement itself says that there is no such name
                    _load(f"{full}.{item}", root)
    return module


@contextmanager
def under_their_own_names() -> Iterator[None]:
    """For the length of the block, upstream's modules are what their names mean to everyone, and then again whose they were.

    Pickle writes classes down by those names. Nothing changes where no other package has them; where one does, other threads must
    not import it in the meantime.
    """
    apart = {name: module for name, module in tuple(sys.modules.items()) if name.startswith(f"{_APART}.")}
    if not apart:
        yield
        return
    before = _modules_by_their_own_names()
    sys.modules.update({name.removeprefix(f"{_APART}."): module for name, module in apart.items()})
    try:
        yield
    finally:
        after = _modules_by_their_own_names()
        for name in after:
            del sys.modules[name]
        sys.modules.update(before)
        root = upstream_root()
        free = [name for name in after.keys() - before.keys() if not _belongs_to_another(name, root)]
        sys.modules.update({name: after[name] for name in free})  # as if they had been imported outside the block


def _modules_by_their_own_names() -> dict[str, ModuleType]:
    return {name: module for name, module in tuple(sys.modules.items()) if name.partition(".")[0] in _NAMES}


@contextmanager
def swapped(target: ModuleType | type, **names: Any) -> Iterator[None]:
    """Rebind `names` in `target` for the length of the block, and put the originals back whatever happens.

    Raises:
        AttributeError: if `target` has no such name, which means that upstream has moved.
    """
    missing = [name for name in names if not hasattr(target, name)]
    if missing:
        raise AttributeError(
            f"{target.__name__} of YOLOv5 has no {', '.join(missing)}: this version of upstream is not supported; "
            f"use the pinned commit (python -m gradnorm_plugin setup)"
        )
    # What stands in the target itself: a static method unwrapped, or an inherited name left behind, would not be put back.
    originals = {name: vars(target).get(name, _ABSENT) for name in names}
    try:
        for name, value in names.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in originals.items():
            delattr(target, name) if value is _ABSENT else setattr(target, name, value)


_SHORT = {"--batch-size": "--batch", "--conf-thres": "--conf", "--iou-thres": "--iou"}
"""The abbreviations that YOLOv5's own guides and habits have; all others have to be written out."""


class _Built(Exception):
    """Upstream's parser has all its flags; the rest of `parse_opt` is not wanted."""


def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser that the `parse_opt` of a script ("train", "val", "detect") builds, with every flag it knows; nothing is parsed.

    Only that function of the script runs: the script itself would import PyTorch, for seconds, before `--help` can answer.

    Raises:
        CheckoutError: if YOLOv5 is missing or not patched.
        RuntimeError: if it builds none.
    """
    file = upstream_root() / f"{script}.py"
    functions = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if getattr(node, "name", "") == "parse_opt"]
    # What the function takes from its module
    scope: dict[str, Any] = {"argparse": argparse, "ROOT": Path(os.path.relpath(file.parent))}
    exec(compile(ast.Module(functions, []), str(file), "exec"), scope)
    built: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        built.append(parser)
        raise _Built

    with swapped(argparse.ArgumentParser, parse_args=stop):
        try:
            scope["parse_opt"]()
        except _Built:
            return _with_short_names(built[0])
        except (KeyError, NameError):
            pass
    raise RuntimeError(f"parse_opt of {file} does not parse its flags as the pinned YOLOv5 does: this version is not supported")


def _with_short_names(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    known = parser._option_string_actions
    for flag, short in _SHORT.items():
        if flag in known and short not in known:
            known[flag].option_strings = [*known[flag].option_strings, short]
            known[short] = known[flag]
    return parser


def shown(path: Path) -> str:
    """`path` relative to the working folder where that is shorter to read."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
