"""Run a detection checkpoint in an upstream YOLOv5 as it was released, in a process that has no `gradnorm_plugin`.

Usage: unpatched_driver.py FOLDER WEIGHTS IMAGES.npy OUT.npz. FOLDER holds upstream's files, unpatched; what they import and
today's libraries no longer have is put in place here. OUT gets `predictions`, and `boxes` after non-maximum suppression.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

import numpy as np
import torch
from packaging.version import parse
from scipy.ndimage import gaussian_filter1d
from upstream_driver import Absent, cut_network


def stand_in(name: str, **members: Any) -> None:
    """A module of that name, and the packages above it, where today's libraries have none."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        sys.modules.setdefault(".".join(parts[:end]), ModuleType(parts[0]))
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(members)


def main() -> None:
    """Load, run, write."""
    folder, weights, images, output = sys.argv[1:]
    cut_network()
    sys.meta_path.insert(0, Absent("gradnorm_plugin"))
    try:
        importlib.import_module("gradnorm_plugin")
    except ModuleNotFoundError:
        pass
    else:
        raise AssertionError("gradnorm_plugin can be imported")
    stand_in("pkg_resources", parse_version=parse)
    stand_in("ultralytics.yolo.utils.checks", check_requirements=lambda *_, **__: True)
    stand_in("scipy.ndimage.filters", gaussian_filter1d=gaussian_filter1d)
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # its torch.load is that of before PyTorch 2.6
    sys.path.insert(0, folder)
    experimental = importlib.import_module("models.experimental")
    general = importlib.import_module("utils.general")
    assert experimental.__file__.startswith(folder) and general.__file__.startswith(folder)

    model = experimental.attempt_load(weights)
    with torch.no_grad():
        predictions = model(torch.from_numpy(np.load(images)))[0]
    boxes = torch.cat(general.non_max_suppression(predictions.clone()))
    np.savez(output, predictions=predictions.numpy(), boxes=boxes.numpy())


if __name__ == "__main__":
    main()
