"""Attackers of the server next to ordinary readers and posters: on loopback, limited, against real
processes."""
