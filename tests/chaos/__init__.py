"""The chaos driver: real processes, faults at random moments, and the proof that nothing was lost."""
