"""Streams that a producer writes: code outside the workers, in its own process or over HTTP.

LangChain is not needed.
"""
