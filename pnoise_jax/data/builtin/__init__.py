"""The data sets that come with the package or an extra: digits, printed ones, MNIST, glyphs."""
