"""Write the demo set: folders of images and joint label files, complete or not there at all.

Everything is drawn into a hidden folder beside the wanted one, which takes its name in one step at the end. Each image
has its own random generator, from the seed, the split and its number: the bytes do not depend on the number of workers.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from gradnorm_demo.plan import JETS, VIEWS, Case, add_extras, count_cases, plan_split
from gradnorm_demo.render import Rendered, render
from gradnorm_plugin.reading import read_text

VERSION = 1  # raise it whenever the same settings give other bytes; with more image outputs it is one more
MANIFEST = "phantom.json"
SPLITS = ("train", "val")
_STALE_SECONDS = 3600


@dataclass(frozen=True)
class Settings:
    """What determines every byte of the set: images a split, seed, side of an image in pixels, with more image outputs or not."""

    train: int = 1042
    val: int = 183
    seed: int = 0
    size: int = 320
    outputs: bool = False

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("train", self.train, 1, 1_000_000),
            ("val", self.val, 1, 1_000_000),
            ("seed", self.seed, 0, 2**32 - 1),
            ("size", self.size, 96, 2048),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be from {low} to {high}")


def plans(settings: Settings) -> dict[str, list[Case]]:
    """The cases of each split, in the order of the image numbers."""
    found = {}
    for number, split in enumerate(SPLITS):
        found[split] = plan_split(getattr(settings, split), np.random.default_rng([settings.seed, number]))
        if settings.outputs:
            found[split] = add_extras(found[split], np.random.default_rng([settings.seed, number, 2]))
    return found


def draw(case: Case, settings: Settings, split: str, index: int) -> Rendered:
    """Draw image `index` of a split, whatever was drawn before it."""
    return render(case, settings.size, np.random.default_rng([settings.seed, SPLITS.index(split), index, 1]))


def label_text(case: Case, boxes: np.ndarray, size: int) -> str:
    """The joint label file of an image: box lines, named lines, a blank line, the view as one-hot (left out without a view)."""
    lines = []
    for jet, (x1, y1, x2, y2) in zip(case.jets, boxes.tolist(), strict=True):
        values = (x1 + x2) / 2 / size, (y1 + y2) / 2 / size, (x2 - x1) / size, (y2 - y1) / size
        lines.append(" ".join([str(JETS.index(jet)), *(f"{value:.6f}" for value in values)]))
    if case.extras:
        found = " ".join(str(int(present)) for present in case.extras.findings.values())
        said = {"finding": found, "rim": f"{case.extras.rim:.1f}"}
        lines += [f"{output}: {said[output]}" for output in case.extras.stated]
    if case.view:
        lines += ["", " ".join(str(int(view == case.view)) for view in VIEWS)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _write(root: Path, settings: Settings, split: str, index: int, case: Case) -> None:
    """Draw one image and write it with its label."""
    drawn = draw(case, settings, split, index)
    name = f"{split}_{index:05d}"
    done, data = cv2.imencode(".jpg", drawn.image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    if not done:
        raise RuntimeError("OpenCV cannot write JPEG images; install another opencv-python")
    (root / "images" / split / f"{name}.jpg").write_bytes(data.tobytes())
    label = label_text(case, drawn.boxes, settings.size)
    (root / "labels" / split / f"{name}.txt").write_text(label, encoding="utf-8")


def _describe(settings: Settings) -> dict[str, object]:
    counts = {split: count_cases(plan) for split, plan in plans(settings).items()}
    said = asdict(settings)
    if not settings.outputs:  # as it was before there were any
        del said["outputs"]
    return {"generator": "gradnorm_plugin phantom", "version": VERSION + settings.outputs, "settings": said, "counts": counts}


def read_manifest(root: Path) -> dict[str, object] | None:
    """The description of a set that this module wrote into `root`, or None if there is none."""
    try:
        found = json.loads(read_text(root / MANIFEST))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("generator") == "gradnorm_plugin phantom" else None


def _already_there(root: Path, settings: Settings) -> bool:
    """Whether `root` holds the set of these settings; raises FileExistsError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    found = read_manifest(root)
    if found is None:
        raise FileExistsError(f"{root} exists and is not a generated demo set; move it away or choose another --root")
    same, counts = found == _describe(settings), asdict(settings)
    expected = [root / "images" / split / f"{split}_{n:05d}.jpg" for split in SPLITS for n in range(counts[split])]
    if same and all(image.is_file() for image in expected):
        return True
    reason = "images are missing in it" if same else f"it was made with {found.get('settings')}"
    raise FileExistsError(f"{root} holds another demo set ({reason}); --overwrite replaces it, --root names another")


def _remove_leftovers(root: Path) -> None:
    """Delete what interrupted runs left beside `root`; a folder touched within the hour may be another run's."""
    for folder in root.parent.glob(f".{root.name}.*.partial"):
        if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def generate(root: Path, settings: Settings, workers: int = 0, overwrite: bool = False) -> bool:
    """Make the demo set in `root`.

    Args:
        root: folder to make: `images/{train,val}/*.jpg`, `labels/{train,val}/*.txt` and a manifest.
        settings: size of the set, seed, image size.
        workers: threads; 0 takes one for each processor, 8 at most.
        overwrite: replace a demo set made with other settings or incomplete. Never replaces other people's files.

    Returns:
        True if it was made, False if it was there already.

    Raises:
        FileExistsError: `root` holds something else.
        ValueError: a negative number of workers.
    """
    if workers < 0:
        raise ValueError(f"workers is {workers}; it must be 0 (one for each processor) or more")
    root = root.expanduser().resolve()
    ours = read_manifest(root) is not None
    if not (overwrite and ours) and _already_there(root, settings):
        return False
    root.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(root)
    partial = Path(tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".partial", dir=root.parent))
    try:
        partial.chmod(0o755)
        for kind in ("images", "labels"):
            for split in SPLITS:
                (partial / kind / split).mkdir(parents=True)
        jobs = [(split, n, case) for split, plan in plans(settings).items() for n, case in enumerate(plan)]
        workers = workers or min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(_write, partial, settings, *job) for job in jobs]
            try:
                for future in tqdm(futures, desc=f"Drawing {root.name}", unit="image", mininterval=0.5):
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        (partial / MANIFEST).write_text(json.dumps(_describe(settings), indent=2) + "\n", encoding="utf-8")
        if ours:
            shutil.rmtree(root)
        elif root.exists():
            root.rmdir()
        os.replace(partial, root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True
