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

_ABSENT = object()


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
    top = name.partition(".")[0]
    if sys.path[:1] != [str(root)]:
        sys.path.insert(0, str(root))
    try:
        module = importlib.import_module(top)
    finally:
        if str(root) in sys.path[1:]:  # it was there already, and stays where it was
            sys.path.remove(str(root))
    for place in [module.__file__, *getattr(module, "__path__", [])]:
        if place and root not in Path(place).resolve().parents:
            raise ImportError(
                f"`{top}` was imported from {place}, not from YOLOv5 in {root}: "
                f"another package has the same name; import gradnorm_plugin before it, or run outside its folder"
            )
    return importlib.import_module(name)


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
