"""One recipe with several methods, side by side."""
