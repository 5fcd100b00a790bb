"""Handle a delivery of the queue until its job is settled."""
