"""Devices and hosts: the mesh, the start on several hosts, and what they tell each other."""

from pnoise_jax.parallel.agreement import (
    DisagreementError,
    on_all_hosts,
    on_any_host,
    require_agreement,
    require_shared_directory,
)
from pnoise_jax.parallel.endings import end_together
from pnoise_jax.parallel.hosts import LostHostError, are_several
from pnoise_jax.parallel.mesh import (
    DATA_AXIS,
    data_mesh,
    random_key,
    replicated,
    require_divisible,
    split_batch,
    to_devices,
)
from pnoise_jax.parallel.progress import note_progress
from pnoise_jax.parallel.start import start
from pnoise_jax.parallel.watchdog import watchdog

__all__ = [
    "DATA_AXIS",
    "DisagreementError",
    "LostHostError",
    "are_several",
    "data_mesh",
    "end_together",
    "note_progress",
    "on_all_hosts",
    "on_any_host",
    "random_key",
    "replicated",
    "require_agreement",
    "require_divisible",
    "require_shared_directory",
    "split_batch",
    "start",
    "to_devices",
    "watchdog",
]
