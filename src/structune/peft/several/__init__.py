"""Several adapters on one model: one for each sample, their weighted sum, one in the place of another."""
