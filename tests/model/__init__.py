"""What a stream's log is, in plain Python, and the machine that compares it with the real one."""
