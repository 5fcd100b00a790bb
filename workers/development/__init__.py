"""What helps a chain's author at his desk: reload, and a small local model."""
