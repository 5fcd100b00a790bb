"""Run one attempt at a job: its stages, their retries, and its failures."""
