"""Evaluates a run, or imported weights, without training."""
