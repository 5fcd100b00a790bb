"""Helpers around the interpreter: tasks, threads, back-off, long JSON. They know nothing of streams."""
