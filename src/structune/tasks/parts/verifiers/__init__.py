"""What a completion is worth, a number that can be checked: one way to find it a file, and which there are."""
