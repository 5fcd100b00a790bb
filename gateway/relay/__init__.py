"""From the log to the readers of this process."""
