"""Real parts for tests: a Redis, gateway processes, a scripted model server."""
