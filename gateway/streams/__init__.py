"""What can be done with a stream, the same for every API and format."""
