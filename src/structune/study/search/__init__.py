"""Which learning rates and settings a study tries, and which of them is best."""
