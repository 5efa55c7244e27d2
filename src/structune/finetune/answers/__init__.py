"""What a run answers, in files."""
