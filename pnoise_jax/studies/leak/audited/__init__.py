"""What is audited: a model of this project or anybody's function, with its examples and labels."""
