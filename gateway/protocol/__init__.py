"""The contract as data: events, states, ids and cursors, errors, server-sent events. No I/O, no clock."""
