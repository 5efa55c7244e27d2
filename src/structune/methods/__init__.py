"""How a model is adapted: one method a file. Nothing here knows tasks, nor imports torch before a model is adapted."""
