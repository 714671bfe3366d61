"""Use a checkpoint through torch.hub, as YOLOv5's documentation shows: every kind of picture, every method of the results.

Usage: upstream_hub.py CHECKOUT WEIGHTS IMAGE SIZE. Prints a line "KIND: METHOD ..." with the methods that worked, or a traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch
from PIL import Image


def main() -> None:
    """Load and look, then use the results."""
    checkout, weights, file, size = sys.argv[1:]
    model = torch.hub.load(checkout, "custom", path=weights, source="local", _verbose=False)
    model.conf, model.max_det = 1e-6, 3  # some boxes, whatever the weights know
    pixels = np.array(Image.open(file))
    kinds = {
        "path": file,
        "Path": Path(file),
        "PIL image": Image.open(file),
        "array": pixels,
        "read-only array": np.asarray(Image.open(file)),
        "OpenCV": cv2.imread(file)[..., ::-1],
        "list": [file, pixels, Image.open(file)],
    }
    with patch("PIL.Image.Image.show") as shown:
        for number, (kind, pictures) in enumerate(kinds.items()):
            count = len(pictures) if isinstance(pictures, list) else 1
            results = model(pictures, size=int(size))
            assert len(results) == count and all(len(boxes) == 3 for boxes in results.pred), results
            assert [len(table) for table in results.pandas().xyxy] == [3] * count
            assert list(results.pandas().xyxy[0]) == "xmin ymin xmax ymax confidence class name".split()
            assert [len(result) for result in results.tolist()] == [1] * count and "image 1/" in str(results)
            before = [picture.copy() for picture in results.ims]
            assert len(results.crop(save=True, save_dir=f"hub/{number}-crops")) == 3 * count
            assert len(list(Path(f"hub/{number}-crops").rglob("*.jpg"))) >= 3
            results.show()
            assert shown.call_count >= count, "nothing was shown"
            shown.reset_mock()
            results.save(save_dir=f"hub/{number}")
            assert len(list(Path(f"hub/{number}").glob("*.jpg"))) == len(set(results.files))
            drawn = results.render()
            assert all((one != other).any() for one, other in zip(drawn, before, strict=True)), "nothing was drawn"
            cv2.rectangle(drawn[0], (0, 0), (3, 3), (0, 0, 0))  # by the user
            results.save(save_dir=f"hub/{number}-again")
            print(f"{kind}: pandas tolist print crop show save render", flush=True)


if __name__ == "__main__":
    main()
