"""The operations on a stream. They are the same for every API and format."""
