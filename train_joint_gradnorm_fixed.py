"""Train YOLOv5 to detect objects and classify the image, balanced by GradNorm: python train_joint_gradnorm_fixed.py --help."""

from gradnorm_plugin.training.run import main

if __name__ == "__main__":
    main()
