"""The loop that trains a run, and what it prints, saves and checks on the way."""
