"""Callers without a right to a stream try to read it: with ids and tokens that are guessed, foreign, forged
or expired."""
