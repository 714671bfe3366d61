"""Training through upstream's own `train.main()`."""
