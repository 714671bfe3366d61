"""Seconds and memory that `val`'s intervals of the detection figures take, on made-up predictions.

    python benchmarks/bootstrap.py [--images 72 --predictions 250 --boxes 12 --classes 3 --draws 1000]

Predictions and boxes are numbers an image. As many predictions as there are boxes hit one, the confident ones more often. Printed
is processor time, not time on the wall.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from gradnorm_plugin.evaluation.intervals import Bootstrap, Predictions, Resampler


def made_up(images: int, predictions: int, boxes: int, classes: int) -> Predictions:
    """A pass of `val` over `images` images."""
    rng = np.random.default_rng(0)
    box_images, box_classes = rng.integers(images, size=images * boxes), rng.integers(classes, size=images * boxes)
    of_image, of_class = rng.integers(images, size=images * predictions), rng.integers(classes, size=images * predictions)
    confidence = rng.random(len(of_image)) ** 3
    hits = rng.permutation(len(of_image))[: len(box_images)]
    of_image[hits], of_class[hits] = box_images[: len(hits)], box_classes[: len(hits)]
    confidence[hits] **= 1 / 3
    correct = np.zeros((len(of_image), 10), dtype=bool)
    correct[hits] = rng.random(len(hits))[:, None] > np.linspace(0.1, 0.9, 10)
    return Predictions(correct, confidence.astype(np.float32), of_class, of_image, box_classes, box_images)


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 72), ("predictions", 250), ("boxes", 12), ("classes", 3), ("draws", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    options = parser.parse_args()
    found = made_up(options.images, options.predictions, options.boxes, options.classes)
    start = time.process_time()
    Bootstrap(options.draws).intervals(options.images, Resampler(found))
    seconds, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.draws} draws of {options.images} images: {seconds:.1f} s, peak memory of the process {peak:.0f} MB")


if __name__ == "__main__":
    main()
