"""Programs on a CPU leave convolutions to XLA's own code; the user's `XLA_FLAGS` are kept."""

import os
import subprocess
import sys

import pytest

from launch import xla_options

CPU = {"JAX_PLATFORMS": "cpu"}
OPTION = "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
LIBRARIES = """
import jax, jax.numpy as jnp
from jax import lax

def both(x, kernel, matrix):
    numbers = ("NHWC", "HWIO", "NHWC")
    x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    return x, matrix @ matrix

arrays = jnp.ones((8, 28, 28, 64)), jnp.ones((3, 3, 64, 64)), jnp.ones((512, 512))
text = jax.jit(both).lower(*arrays).compile().as_text()
fused = text[: text.index("ENTRY")]
print("convolution(" in fused)
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", OPTION),
        ("--xla_dump_to=/tmp/x", f"--xla_dump_to=/tmp/x {OPTION}"),
        (OPTION, OPTION),
        ("--xla_cpu_experimental_ynn_fusion_type=", "--xla_cpu_experimental_ynn_fusion_type="),
    ],
)
def test_the_users_flags_are_kept(before, after):
    environment = CPU | {"XLA_FLAGS": before}
    assert (environment | xla_options.wanted(environment))["XLA_FLAGS"] == after


@pytest.mark.parametrize("platforms", ["cuda", "tpu,cpu", "rocm"])
def test_accelerators_get_no_option(platforms):
    assert xla_options.wanted({"JAX_PLATFORMS": platforms}) == {}


@pytest.mark.parametrize("version", ["0.9.2", "0.12.1", "0.13.0", "1.0", "unknown", None])
def test_other_versions_which_may_not_know_the_option_get_none(version, monkeypatch):
    def look_up(name):
        assert name == "jaxlib"
        if version is None:
            raise xla_options.importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(xla_options.importlib.metadata, "version", look_up)
    assert xla_options.wanted(CPU) == {}


def test_only_programs_of_this_package_get_the_option(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    xla_options.choose()  # in the process of these tests
    assert "XLA_FLAGS" not in os.environ
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "launch.train", "x"])
    monkeypatch.setattr(sys, "argv", ["-m", "x"])
    xla_options.choose()
    assert os.environ["XLA_FLAGS"] == OPTION


def test_xla_knows_the_option_and_computes_convolutions_itself():
    """Without it, YNNPACK computes those of these sizes."""
    seen = []
    for flags in ({}, {"XLA_FLAGS": OPTION}):
        environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | CPU | flags
        done = subprocess.run(
            [sys.executable, "-c", LIBRARIES],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        seen.append(done.stdout.strip())
    assert seen == ["True", "False"]
