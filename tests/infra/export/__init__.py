"""Writes tests/infra/schemas anew from published packages; nothing of it runs in a test."""
