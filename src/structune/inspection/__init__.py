"""Adapters looked at: their updates, layer by layer."""
