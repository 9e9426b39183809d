"""Eight CPU devices for every test, set before JAX starts; the digits, prepared once."""

import os
import pathlib

# Tests compile much and compute little. Programs that they start inherit it; tests of what the
# compiler makes of the noise turn it off. Before JAX is imported, which reads it.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jax
import pytest

from pnoise_jax import data

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> pathlib.Path:
    """A directory with the digits in it."""
    directory = tmp_path_factory.mktemp("data")
    data.load("digits", split="test", data_dir=directory)
    return directory


@pytest.fixture(scope="session")
def digits(data_dir) -> data.Dataset:
    """The test split of the digits."""
    return data.load("digits", split="test", data_dir=data_dir, cache=True)
