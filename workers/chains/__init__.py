"""The chains that come with the product, and the registry that also finds the user's chains."""
