"""Webhooks without the store: which URLs may be named, which addresses may be asked, signatures, sending."""
