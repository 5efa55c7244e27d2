"""What is learned: one task a file.

`task.py` says what a task is, `registry.py` which there are, and `parts/` holds what they share.
"""
