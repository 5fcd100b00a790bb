"""Checkpoints of graphs in the Redis that the streams are in. It is imported where it is asked for."""
