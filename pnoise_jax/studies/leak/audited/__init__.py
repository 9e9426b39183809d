"""What is audited: a model of this project or any function, with its examples and labels."""
