"""Durable Streams, reading side."""
