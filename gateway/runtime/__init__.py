"""Helpers for tasks, threads, retry pauses and long JSON. They know nothing about streams."""
