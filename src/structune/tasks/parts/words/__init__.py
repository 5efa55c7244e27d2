"""Words, and a tag for each."""
