"""Signals, the step after which a run saves and ends, and what is said of going on."""
