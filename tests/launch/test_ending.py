"""Exit codes: whether starting the same command again could help."""

import pytest

from launch.ending import code_of
from pnoise_jax import parallel, runs, training


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (training.ConfigError("steps=0"), 64),
        (ValueError("sweep() returns no cells"), 64),
        (ValueError("TVT: patch_weight=-1.0: give a number of at least 0"), 64),
        (runs.OtherStateError("a different state"), 64),
        (runs.TakenOverError("in use"), 64),
        (training.NonFiniteLossError("the loss of step 3 is nan"), 64),
        (NotADirectoryError("it is a file"), 64),
        (PermissionError("not writable"), 64),
        (FileNotFoundError("not mounted yet"), 1),
        (OSError("no space left"), 1),
        (parallel.LostHostError("lost host 1"), 1),
        (parallel.DisagreementError("the other host still has the old code"), 1),
        (ValueError("RESOURCE_EXHAUSTED: another program uses the device's memory"), 1),
        (RuntimeError("a bug"), 1),
    ],
    ids=repr,
)
def test_only_what_would_fail_again_is_a_wrong_command(error, code):
    assert code_of(error) == code
