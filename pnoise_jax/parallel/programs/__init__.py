"""What a compiled program moves, read from its text."""
