"""Versions of what computes, for the files that hold figures."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import torch

from gradnorm_plugin.upstream.gateway import upstream


def version_facts() -> Mapping[str, str | None]:
    """Versions of what computes; the commit of YOLOv5 is None where its folder is no git repository."""
    try:
        ours = version("yolov5-gradnorm")
    except PackageNotFoundError:  # run from its folder
        ours = None
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "yolov5_gradnorm": ours,
        "yolov5_commit": upstream("utils.general").check_git_info()["commit"],
    }
