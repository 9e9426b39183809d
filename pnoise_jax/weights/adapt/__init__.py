"""Adapts the arrays of a file that may differ from the model's: the head and the positions."""
