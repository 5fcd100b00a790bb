"""Bring events from the log to the readers that are connected to this process."""
