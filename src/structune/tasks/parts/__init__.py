"""What tasks share, one concept a file."""
