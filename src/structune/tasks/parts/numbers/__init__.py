"""A number for each example."""
