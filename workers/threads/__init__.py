"""Read and write what a caller's thread contains: the messages of text chains, and the states of graphs."""
