"""Tasks × methods × learning rates × seeds: what is run, found and reported."""
