"""Identify callers: by an API key, App Service's sign-in, or a JWT. Also read their claims."""
