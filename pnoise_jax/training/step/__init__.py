"""The pure training step, what it is made of, and the program it is compiled to."""
