"""The folder of one run: its files, its state, its card, its checkpoints."""
