"""One small file a run, and which of them count."""
