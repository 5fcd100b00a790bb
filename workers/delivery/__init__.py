"""From a delivery of the queue to a settled job."""
