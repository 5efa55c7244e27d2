"""Tests on a GPU, and `python -m gpu`, which runs them and everything else that takes a device."""
