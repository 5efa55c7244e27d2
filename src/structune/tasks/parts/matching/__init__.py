"""A pretrained head put to use for other classes without training it."""
