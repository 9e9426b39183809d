"""SSRT and its parts."""
