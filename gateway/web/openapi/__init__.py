"""The OpenAPI document and its parts. No I/O."""
