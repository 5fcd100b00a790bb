"""Save LangGraph checkpoints in the Redis server that also stores the streams.

Nothing imports this package when the process starts: the code that needs a checkpointer imports it then.
"""
