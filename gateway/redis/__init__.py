"""Commands to Redis over connections of our own, to one server or a cluster."""
