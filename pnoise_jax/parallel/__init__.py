"""Devices and hosts: the mesh, starting on several hosts, and communication between them."""

from pnoise_jax.parallel.fsdp import place, require_split
from pnoise_jax.parallel.hosts.agreement import (
    on_all_hosts,
    on_any_host,
    require_agreement,
    require_shared_directory,
)
from pnoise_jax.parallel.hosts.arrivals import DisagreementError
from pnoise_jax.parallel.hosts.endings import end_together
from pnoise_jax.parallel.hosts.hosts import LostHostError, are_several
from pnoise_jax.parallel.hosts.progress import note_progress
from pnoise_jax.parallel.hosts.start import start
from pnoise_jax.parallel.hosts.watchdog import watchdog
from pnoise_jax.parallel.matmuls import MatmulSplit, lay_out
from pnoise_jax.parallel.mesh import (
    DATA_AXIS,
    batch_parts,
    data_mesh,
    is_split,
    make_mesh,
    random_key,
    replicated,
    require_divisible,
    require_mesh,
    split_batch,
    to_devices,
    training_mesh,
    whole_on_host,
)
from pnoise_jax.parallel.programs.collectives import Collective, find_collectives
from pnoise_jax.parallel.programs.traffic import count_traffic
from pnoise_jax.parallel.reducing import reduce_kernels_in, reduces_kernels

__all__ = [
    "DATA_AXIS",
    "Collective",
    "DisagreementError",
    "LostHostError",
    "MatmulSplit",
    "are_several",
    "batch_parts",
    "count_traffic",
    "data_mesh",
    "end_together",
    "find_collectives",
    "is_split",
    "lay_out",
    "make_mesh",
    "note_progress",
    "on_all_hosts",
    "on_any_host",
    "place",
    "random_key",
    "reduce_kernels_in",
    "reduces_kernels",
    "replicated",
    "require_agreement",
    "require_divisible",
    "require_mesh",
    "require_shared_directory",
    "require_split",
    "split_batch",
    "start",
    "to_devices",
    "training_mesh",
    "watchdog",
    "whole_on_host",
]
