"""What methods do while they train: imports torch, and is imported when a model is adapted."""
