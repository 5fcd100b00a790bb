"""What a thread of a caller's holds: messages of text chains, states of graphs."""
