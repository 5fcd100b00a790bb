"""The chaos driver: real processes, faults at random moments, and a check that nothing was lost."""
