"""Run Schemathesis against real hosts with their own /openapi.json: `make contract`, and one round in the
test suite."""
