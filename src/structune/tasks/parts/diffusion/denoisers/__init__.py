"""What denoisers of one architecture are told, one architecture a file; who chooses."""
