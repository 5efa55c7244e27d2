"""Each command of `structune` is a function in the file of its name."""
