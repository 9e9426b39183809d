"""Adapts the arrays of a file to a model, where that is allowed: the head and the positions."""
