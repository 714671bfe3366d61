"""Train YOLOv5 to detect objects and classify the image, balanced by GradNorm: python train_joint_gradnorm_fixed.py --help."""

import sys

from gradnorm_plugin.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
