"""The chains that ship, and the registry that finds yours."""
