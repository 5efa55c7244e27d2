"""Pairs of responses to a prompt, of which one is preferred."""
