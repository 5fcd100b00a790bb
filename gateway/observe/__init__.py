"""Observability of a process: metrics, traces and log lines."""
