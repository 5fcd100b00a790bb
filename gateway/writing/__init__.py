"""Write the events of a claim, and find the events that the log already has."""
