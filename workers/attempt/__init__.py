"""One attempt at a job: its stages, what is tried again, what failed."""
