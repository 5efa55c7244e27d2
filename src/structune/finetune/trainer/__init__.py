"""transformers' Trainer for a recipe, and what it tells while it trains."""
