"""A model of a stream's log in plain Python, and the state machine that compares it with the real log."""
