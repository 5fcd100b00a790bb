"""What an operator asks: can it serve, which streams are there, what happened to one."""
