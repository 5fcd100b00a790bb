"""Who asks: an API key, App Service's sign-in, or a JWT, and what it says of him."""
