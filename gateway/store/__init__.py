"""The data of streams in Redis, and the classes that call the scripts which change this data."""
