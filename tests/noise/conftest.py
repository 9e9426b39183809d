"""The noises as users compile them: here it matters what the compiler makes of them."""

import jax
import pytest

OPTIMISED = ("test_linear_transform", "test_stochastic", "test_types")


@pytest.fixture(autouse=True, scope="module")
def optimised(request):
    """Compiles the tests of `OPTIMISED` as users do; the others are about where noise enters."""
    optimise = request.path.stem in OPTIMISED
    jax.config.update("jax_disable_most_optimizations", not optimise)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
