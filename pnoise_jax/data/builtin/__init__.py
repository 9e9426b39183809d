"""Data sets that come with the package or an extra: digits, printed digits, MNIST, glyphs."""
