"""The data sets that come with the package: handwritten digits, and glyphs drawn from fonts."""
