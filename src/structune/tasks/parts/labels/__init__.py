"""Any number of labels for each example."""
