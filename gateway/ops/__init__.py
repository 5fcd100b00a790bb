"""Information for operators: whether the process can serve, which streams exist, the history of a stream."""
