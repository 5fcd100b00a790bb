"""Jobs to workers, at least once."""
