"""Who has no right to a stream tries: ids and tokens that are guessed, foreign, forged or expired."""
