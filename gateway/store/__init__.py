"""What stands in Redis for a stream, and the scripts that change it."""
