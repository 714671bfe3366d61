"""Writes checkpoints as an attacker, or an old version of something, could: any global, call and state, without the objects."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch


class Named:
    """Pickles as the global `name` of `module`, whatever is there."""

    def __init__(self, module: str, name: str) -> None:
        self.instructions = [f"c{module}\n{name}\n".encode()]


class Call:
    """Pickles as a call of `function` (a `Named`, or any function) with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.instructions = [function, arguments, pickle.REDUCE]


class New:
    """Pickles as a new object of `kind`, without a call of its constructor."""

    def __init__(self, kind: Any, *arguments: Any) -> None:
        self.instructions = [kind, arguments, pickle.NEWOBJ]


class Filled:
    """Pickles as what `maker` (one of the above) makes, filled with each of `states` in turn."""

    def __init__(self, maker: Any, *states: Any) -> None:
        self.instructions = [maker, *(part for state in states for part in (state, pickle.BUILD))]


class _Forger(pickle._Pickler):  # the one in Python: that in C has no `save`
    def save(self, obj: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(obj, (Named, Call, New, Filled)):
            super().save(obj, *args, **kwargs)
            return
        for part in obj.instructions:
            if isinstance(part, bytes):
                self.write(part)
            else:
                self.save(part)


def forge(contents: Any, file: Path) -> Path:
    """Write `contents`, with any of the above in it, as `torch.save` would."""
    torch.save(contents, file, pickle_module=SimpleNamespace(__name__="forgery", Pickler=_Forger))
    return file
