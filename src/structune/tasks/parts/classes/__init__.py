"""One of several classes for each example."""
