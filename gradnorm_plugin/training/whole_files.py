"""Checkpoints and yamls that upstream's training writes appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gradnorm_plugin.files import whole_file
from gradnorm_plugin.upstream.gateway import swapped, upstream


@contextmanager
def whole_files() -> Iterator[None]:
    """While upstream trains, its `torch.save` and `yaml_save` write whole files."""
    train = upstream("train")
    save, yaml_save = torch.save, train.yaml_save

    def save_whole(contents: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, os.PathLike)):
            return save(contents, f, *args, **kwargs)
        with whole_file(Path(f)) as partial, partial.open("wb") as file:  # of a path, torch writes the name into the file
            save(contents, file, *args, **kwargs)

    def yaml_save_whole(file: Any, data: Any) -> None:
        with whole_file(Path(file)) as partial:
            yaml_save(partial, data)

    with swapped(torch, save=save_whole), swapped(train, yaml_save=yaml_save_whole):
        yield
