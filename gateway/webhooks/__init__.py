"""Webhooks without the store: allowed URLs and addresses, signatures, and sending."""
