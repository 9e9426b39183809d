"""Eight CPU devices for every test, set before JAX starts; the digits, prepared once."""

import atexit
import gc
import importlib.metadata
import os
import pathlib
import shutil
import tempfile

# Tests compile much and compute little. Programs that they start inherit this; tests of what noises
# compute turn it off. It is set before JAX is imported, which reads it.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

# Only profiles need the place in our code of each operation: finding it takes 4 % of the CPU time.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

# Splitting programs as small as these among threads that compile the parts costs a fifth more CPU
# time. XLA's older emitters of CPU code compile in half the time; from 0.11 on there is no choice.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_cpu_parallel_codegen_split_count=1"
).strip()
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

# Tests, and programs that they start, load what earlier ones have compiled. Each worker has its own
# directory in that of the main process, as JAX does not lock it.
if "PYTEST_XDIST_WORKER" in os.environ:
    COMPILED = os.path.join(
        os.environ["JAX_COMPILATION_CACHE_DIR"], os.environ["PYTEST_XDIST_WORKER"]
    )
else:
    COMPILED = tempfile.mkdtemp(prefix="pnoise_jax-compiled-")
    atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest

from pnoise_jax import data
from tests import parameter_shapes

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
parameter_shapes.remember()


# Tracing makes many objects that stay: collecting garbage among them took 7 % of the CPU time.
gc.set_threshold(50_000, 20, 50)


def pytest_collection_finish():
    """Never collects objects that importing has made."""
    gc.collect()
    gc.freeze()


# Where JAX raises instead of promoting dtypes, except in tests marked flax_promotes.
STRICT = ("noise", "models", "evaluation", "training/step/test_step.py")


@pytest.fixture(autouse=True)
def strict_promotion(request):
    """No implicit promotion in the folders and files of STRICT."""
    path = request.path.relative_to(pathlib.Path(__file__).parent)
    is_strict = any(path.is_relative_to(place) for place in STRICT)
    allowed = request.node.get_closest_marker("flax_promotes") is not None
    with jax.numpy_dtype_promotion("strict" if is_strict and not allowed else "standard"):
        yield


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


@pytest.fixture
def unprivileged():
    """A directory and a function that calls another as a user without root's rights."""
    with tempfile.TemporaryDirectory() as directory:  # pytest's are closed to other users
        os.chmod(directory, 0o755)

        def call(function):
            if os.getuid() != 0:
                return function()
            os.setresuid(65534, 65534, 0)
            try:
                return function()
            finally:
                os.setresuid(0, 0, 0)

        yield pathlib.Path(directory), call
