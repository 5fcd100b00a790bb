"""HTTP in and out, the same for both hosts."""
