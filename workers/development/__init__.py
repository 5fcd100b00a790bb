"""Tools for the author of a chain on a developer's machine: reload, and a small local model."""
