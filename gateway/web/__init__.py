"""HTTP requests and responses. The same code serves both hosts."""
