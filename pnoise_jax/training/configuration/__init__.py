"""The config of a run: its fields, what each allows, and how they are read."""
