"""Checkpoints and yamls that upstream's training writes appear whole or not at all: a temporary name first, then a rename."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gradnorm_plugin.upstream.gateway import swapped, upstream

SUFFIX = ".partial"


class WriteError(OSError):
    """A file of the run could not be written; what was there before is untouched."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it takes the place of `path` at the end of the block.

    Raises:
        WriteError: if the file system refuses (full, read-only); the temporary file is gone then.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{SUFFIX}")  # every process of a distributed run writes the yamls
    try:
        yield partial
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch.save says RuntimeError where the disk is full
        partial.unlink(missing_ok=True)
        raise WriteError(f"{path} cannot be written: {error}; free some space or name another --project") from error


@contextmanager
def whole_files() -> Iterator[None]:
    """While upstream trains, its `torch.save` and `yaml_save` write whole files."""
    train = upstream("train")
    save, yaml_save = torch.save, train.yaml_save

    def save_whole(contents: Any, f: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(f, (str, os.PathLike)):
            return save(contents, f, *args, **kwargs)
        with whole_file(Path(f)) as partial:
            save(contents, partial, *args, **kwargs)

    def yaml_save_whole(file: Any, data: Any) -> None:
        with whole_file(Path(file)) as partial:
            yaml_save(partial, data)

    with swapped(torch, save=save_whole), swapped(train, yaml_save=yaml_save_whole):
        yield
