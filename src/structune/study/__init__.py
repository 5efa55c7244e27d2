"""Looking at adapters and comparing methods."""
