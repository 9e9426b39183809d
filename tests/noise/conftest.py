"""Turns XLA's optimizations on for the modules that test what noises compute."""

import jax
import pytest

OPTIMISED = ("test_linear_transform", "test_stochastic", "test_types")


@pytest.fixture(autouse=True, scope="module")
def optimised(request):
    """Compiles the modules in `OPTIMISED` as users do; the others test where noise enters."""
    optimise = request.path.stem in OPTIMISED
    jax.config.update("jax_disable_most_optimizations", not optimise)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
