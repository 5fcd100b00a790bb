"""A claim's appends: events in, frames out."""
