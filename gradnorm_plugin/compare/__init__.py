"""The command `compare`: several ways to balance the two tasks, trained alike on several seeds, beside each other."""
