"""The work directory of a run. Only this package uses its layout and Orbax."""

from pnoise_jax.runs import checksums, stored_arrays
from pnoise_jax.runs.array_kinds import OtherStateError
from pnoise_jax.runs.checkpoints import Checkpoints
from pnoise_jax.runs.config_file import read_config, write_config
from pnoise_jax.runs.directory import (
    TakenOverError,
    lock,
    make_writable,
    require_layout,
    require_room,
)
from pnoise_jax.runs.layout import BASE_CONFIG, STUDY, RunDirectory, is_in_bucket, locate
from pnoise_jax.runs.writers import Writer, Writers, find_writer, open_writers

__all__ = [
    "BASE_CONFIG",
    "STUDY",
    "Checkpoints",
    "OtherStateError",
    "RunDirectory",
    "TakenOverError",
    "Writer",
    "Writers",
    "checksums",
    "find_writer",
    "is_in_bucket",
    "locate",
    "lock",
    "make_writable",
    "open_writers",
    "read_config",
    "require_layout",
    "require_room",
    "stored_arrays",
    "write_config",
]
