"""Schemathesis against real hosts, by their own /openapi.json: `make contract`, and a round in the suite."""
