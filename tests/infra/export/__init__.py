"""Regenerate tests/infra/schemas from published packages. No test runs this code."""
