"""Attackers at the door beside ordinary readers and posters: on loopback, bounded, against real processes."""
