"""Queues that deliver jobs to workers, each job at least once."""
