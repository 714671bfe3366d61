"""The command `compare`: several ways to balance the two tasks, trained on the same seeds, with their figures side by side."""
