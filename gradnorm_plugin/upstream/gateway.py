"""The one door to upstream YOLOv5: finds the checkout, imports its modules, swaps names in them for the length of a `with`.

No other module of this package touches `sys.path` or imports `models`, `utils`, `train` or `val` by itself.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from gradnorm_plugin.upstream.checkout import find_checkout, is_yolov5


def upstream_root() -> Path:
    """The folder of the YOLOv5 in use: the one already imported (its own scripts were started), else the checkout.

    Raises:
        CheckoutError: if there is none, or it is not patched.
    """
    for entry in getattr(sys.modules.get("models"), "__path__", []):
        root = Path(entry).resolve().parent
        if is_yolov5(root):
            return root
    return find_checkout()


def upstream(name: str) -> ModuleType:
    """Upstream's module `name` ("train", "models.yolo", "utils.loss", ...), imported from the checkout and nowhere else.

    Raises:
        CheckoutError: if the checkout is missing or not patched.
        ImportError: if another package of the same name was imported first.
    """
    root = upstream_root()
    if sys.path[:1] != [str(root)]:
        sys.path.insert(0, str(root))
    try:
        module = importlib.import_module(name)
    finally:
        if str(root) in sys.path[1:]:
            sys.path.remove(str(root))
    found = Path(module.__file__ or "").resolve()
    if root not in found.parents:
        raise ImportError(
            f"`{name}` was imported from {found}, not from YOLOv5 in {root}: "
            f"another package has the same name; import gradnorm_plugin before it, or run outside its folder"
        )
    return module


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
    originals = {name: getattr(target, name) for name in names}
    try:
        for name, value in names.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in originals.items():
            setattr(target, name, value)
