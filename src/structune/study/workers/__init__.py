"""Runs side by side: in processes of their own, and on other machines."""
