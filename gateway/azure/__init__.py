"""Who this process is on Azure, and what it is told there."""
