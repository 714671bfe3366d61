"""From weights and pictures to boxes and the image's class: in Python (`Predictor`), and as the command `predict`."""
