"""Arrays of a checkpoint, read without training."""

import errno
import json
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from pnoise_jax import weights
from pnoise_jax.runs import checksums
from pnoise_jax.weights import matching
from pnoise_jax.weights.formats import run_weights


@pytest.fixture
def checkpoint(tmp_path):
    """Has one array."""
    tree = {"params": {"a": np.arange(3, dtype=np.float32)}}
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "12" / "state", tree)
    (tmp_path / "12" / "arrays").mkdir()
    (tmp_path / "12" / "arrays" / "metadata").write_text(json.dumps(checksums.describe(tree)))
    return tmp_path / "12"


def read(checkpoint):
    with run_weights.open_run(checkpoint).open() as read:
        return read("params/a")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("read_with", [False, True])
def test_x64_settings_are_not_called_damage(tmp_path, dtype, written, read_with):
    """A checkpoint may be written, and read, with 64 bits or without."""
    numbers = np.linspace(0, 1, 7).astype(dtype)
    with jax.enable_x64(written):
        tree = {"params": {"a": numbers if dtype == "float64" else jax.numpy.asarray(numbers)}}
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "12" / "state", tree)
        described = {"params/a": checksums.describe_array(tree["params"]["a"])}
    (tmp_path / "12" / "arrays").mkdir()
    (tmp_path / "12" / "arrays" / "metadata").write_text(json.dumps(described))
    with (
        jax.enable_x64(read_with),
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
    ):
        np.testing.assert_array_equal(read(tmp_path / "12"), numbers)


def test_a_checksum_of_float64_is_that_of_the_array_on_a_device():
    numbers = np.linspace(0, 1, 7)
    with jax.enable_x64(True):
        on_device = checksums.describe_array(jax.numpy.asarray(numbers))
    assert checksums.describe_array(numbers) == on_device


def test_the_reader_is_closed(checkpoint, monkeypatch):
    closed = []
    monkeypatch.setattr(
        ocp.PyTreeCheckpointHandler, "close", lambda handler: closed.append(handler)
    )
    np.testing.assert_array_equal(read(checkpoint), [0, 1, 2])
    assert len(closed) == 1


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (MemoryError("full"), MemoryError, "^full$"),
        (OSError(errno.EMFILE, "Too many open files"), OSError, "Too many open files"),
        (ValueError("open [OS error 13: EACCES]"), PermissionError, "Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file"), ValueError, "/12 is damaged .*an older"),
    ],
)
def test_failures_of_the_machine_are_not_called_damage(
    checkpoint, monkeypatch, raised, kind, message
):
    def refuse(*_, **__):
        raise raised

    monkeypatch.setattr(ocp.PyTreeCheckpointHandler, "restore", refuse)
    with pytest.raises(kind, match=message) as caught:
        read(checkpoint)
    assert type(caught.value) is kind


def test_an_unreadable_or_invalid_checkpoint_is_named(checkpoint, monkeypatch):
    """When it is opened, exported, or its fingerprint taken."""
    metadata = checkpoint / "arrays" / "metadata"
    text = metadata.read_text()
    metadata.unlink()
    for ask in (weights.fingerprint, matching.open_named):
        with pytest.raises(
            ValueError, match=rf"^weights='{checkpoint}' is not a checkpoint of this package"
        ):
            ask(checkpoint)
    metadata.write_text(text)

    def refuse(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)  # root may read anything
    for ask, field in (
        (weights.fingerprint, "weights="),
        (matching.open_named, "weights="),
        (weights.export, "--workdir="),
    ):
        with pytest.raises(OSError, match=rf"^{field}'{checkpoint}' cannot be read \(Permission"):
            ask(checkpoint)


def test_a_checkpoint_under_another_number_is_refused(tmp_path):
    tree = {"params": {"a": np.arange(3, dtype=np.float32)}, "step": np.array(50, np.int32)}
    for number in (50, 60):
        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "checkpoints" / str(number) / "state", tree)
        metadata = tmp_path / "checkpoints" / str(number) / "arrays" / "metadata"
        metadata.parent.mkdir()
        metadata.write_text(json.dumps(checksums.describe(tree)))
    assert read(tmp_path / "checkpoints" / "50").tolist() == [0, 1, 2]
    for path in (tmp_path, tmp_path / "checkpoints" / "60"):
        with pytest.raises(ValueError, match=r"under the number 60 that is of step 50 .*copied or"):
            run_weights.open_run(path)
