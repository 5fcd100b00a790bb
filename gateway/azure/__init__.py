"""The identity of this process on Azure, and the settings that the platform gives it."""
