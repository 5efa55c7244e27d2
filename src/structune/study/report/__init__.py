"""A study as one page: what it found, how sure that is, and what was run where."""
