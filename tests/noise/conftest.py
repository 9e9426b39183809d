"""The programs that users run: here it matters what the compiler makes of them."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def optimised():
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
