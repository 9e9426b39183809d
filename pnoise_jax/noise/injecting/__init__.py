"""Where noise enters a model: injections, taps, and interceptors for other models."""
