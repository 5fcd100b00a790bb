"""Coverage-guided fuzzing of all code that reads bytes from outside: `make fuzz` (CONTRIBUTING.md)."""
