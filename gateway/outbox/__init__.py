"""Deliver the webhooks that are due. Every running process may do this."""
