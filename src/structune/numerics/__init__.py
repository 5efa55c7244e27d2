"""Arithmetic that the families are worked out and started with: nothing here knows what a family is."""
