"""The files of a run that say how its numbers came about, and checks against them."""
