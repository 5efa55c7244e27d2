"""Several processes that train one run, and models that no device holds alone."""
