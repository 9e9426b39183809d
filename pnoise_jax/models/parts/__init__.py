"""The parts that models share: attention, convolutions, windows, norms, products."""
