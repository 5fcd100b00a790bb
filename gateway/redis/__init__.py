"""Send commands to Redis over our own connections, to one server or to a cluster."""
