"""Heart-ultrasound phantoms: a generated demo set for joint detection and classification. Not for medical use.

A reader may follow the way of an image: plan (which cases) -> heart, planes (a heart in an imaging plane) -> bmode
(grey echoes in the fan) -> doppler (colours) -> render (image and boxes) -> dataset (files).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gradnorm_demo.dataset import Settings, generate, plans
from gradnorm_demo.plan import count_cases
from gradnorm_plugin.files import explain

__all__ = ["Settings", "generate", "main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gradnorm_plugin demo-data",
        description="Draw the demo set: heart-ultrasound phantoms with jets (boxes) and views (image classes).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    default = Settings()
    parser.add_argument(
        "--outputs", action="store_true", help="with findings and the width of an effusion as well, for data/heart-outputs.yaml"
    )
    parser.add_argument("--root", type=Path, help="folder to make; datasets/heart-phantom, or heart-outputs with --outputs")
    parser.add_argument("--train", type=int, default=default.train, help="number of training images")
    parser.add_argument("--val", type=int, default=default.val, help="number of validation images")
    parser.add_argument("--seed", type=int, default=default.seed, help="the same seed gives the same bytes")
    parser.add_argument("--size", type=int, default=default.size, help="side of an image, pixels")
    parser.add_argument("--workers", type=int, default=0, help="threads; 0: one for each processor")
    parser.add_argument("--overwrite", action="store_true", help="replace a demo set made with other settings")
    return parser


def main(argv: list[str]) -> None:
    """Run `demo-data` with command-line arguments `argv`; ends the program with a message if it cannot be done."""
    args = _parser().parse_args(argv)
    root = args.root or Path("datasets", "heart-outputs" if args.outputs else "heart-phantom")
    try:
        settings = Settings(args.train, args.val, args.seed, args.size, args.outputs)
        made = generate(root, settings, args.workers, args.overwrite)
    except OSError as error:
        sys.exit(f"demo-data: {explain(error)}")
    except ValueError as error:
        sys.exit(f"demo-data: {error}")
    print(f"{root}: {'generated' if made else 'already complete, nothing to do'}")
    for split, plan in plans(settings).items():
        groups = (f"{name} " + ", ".join(f"{k} {v}" for k, v in counts.items()) for name, counts in
                  count_cases(plan).items())  # fmt: skip
        print(f"  {split}: " + "; ".join(groups))
