"""The data sets that come with the package: digits, handwritten and printed, and glyphs."""
