"""What runs read: parts of data, models, files, known by their bytes."""
