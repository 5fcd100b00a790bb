"""Delivers the webhooks that are due; every process that lives may."""
