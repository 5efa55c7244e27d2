"""Texts that a model makes."""
