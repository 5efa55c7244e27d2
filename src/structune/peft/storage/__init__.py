"""Saved adapters: looked over, loaded with or without a wrapper, taken out again where that fails."""
