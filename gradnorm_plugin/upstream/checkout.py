"""Which YOLOv5 is in use, and whether our patches are in it. Runs at every import: no subprocess in the usual case."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from gradnorm_plugin.upstream.patching import patch_files, patches_digest, patches_in_content
from gradnorm_plugin.upstream.record import CheckoutError, Record, file_id

__all__ = ["CheckoutError", "REPOSITORY", "WORKSPACE", "checkout_folder", "find_checkout", "is_yolov5"]

_CLONE = Path(__file__).resolve().parents[2]
_IN_CLONE = (_CLONE / "patches").is_dir()


def _installed() -> Path:
    """Where pip has put what the wheel brings beside its modules: into the environment, or the user's folder (`--user`)."""
    schemes = (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user"))
    places = [Path(sysconfig.get_path("data", scheme)) / "share" / "yolov5-gradnorm" for scheme in schemes]
    return next((place for place in places if (place / "patches").is_dir()), places[0])


REPOSITORY = _CLONE if _IN_CLONE else _installed()
"""The folder that holds `patches/`, `data/` and `yolov5/`: the clone, or what an installed wheel brings with its environment."""

WORKSPACE = REPOSITORY if _IN_CLONE else Path.cwd()
"""Where `runs/` goes: into the clone, or into the working folder if there is no clone."""

_REMEDY = f"run `python -m gradnorm_plugin setup`{' (or `make setup`)' if _IN_CLONE else ''}"


def checkout_folder() -> tuple[Path, bool]:
    """The folder where YOLOv5 is expected, and whether the user named it (`YOLOV5_DIR`)."""
    named = os.environ.get("YOLOV5_DIR", "").strip()
    return (Path(named).expanduser().resolve(), True) if named else ((REPOSITORY / "yolov5").resolve(), False)


def is_yolov5(folder: Path) -> bool:
    """Whether `folder` holds the files by which YOLOv5 is known."""
    return all((folder / name).is_file() for name in ("train.py", "val.py", "models/yolo.py", "utils/loss.py"))


def find_checkout() -> Path:
    """The patched YOLOv5 in use: `YOLOV5_DIR` if set, else `yolov5/` beside this package.

    Raises:
        CheckoutError: if it is missing or not patched; the message names the command to run.
    """
    folder, named = checkout_folder()
    if not is_yolov5(folder):
        if named:
            raise CheckoutError(f"YOLOV5_DIR={folder} is no YOLOv5 checkout: set it to one, or unset it and {_REMEDY}")
        raise CheckoutError(f"YOLOv5 is missing in {folder}: {_REMEDY}")
    record = Record.read(folder)
    if record is None:
        if not patches_in_content(folder, patch_files(REPOSITORY)):
            raise CheckoutError(f"YOLOv5 in {folder} is not patched: {_REMEDY}")
        return folder
    if record.digest != patches_digest(patch_files(REPOSITORY)):
        raise CheckoutError(f"the patches to YOLOv5 in {folder} are not complete or out of date: {_REMEDY}")
    for path, (before, after) in record.files.items():
        found = file_id(folder / path)
        # A file that is neither is the user's own edit of a patched file, which is theirs to make.
        if found != after and found == before:
            raise CheckoutError(f"{folder / path} lost its patch (it is upstream's again): {_REMEDY}")
    return folder
