"""Orbax, which writes small arrays whole."""

import jax
import orbax.checkpoint as ocp

_SMALLEST_PART = 1 << 20  # bytes


def write_small_arrays_whole() -> None:
    """Cuts an array that all devices hold only into parts of a mebibyte or more.

    Each device may write a part of it. By default Orbax cuts everything, a bias of 64 numbers too,
    with a program for each shape, and cutting takes longer than writing.
    """
    handler = ocp.type_handlers.get_type_handler(jax.Array)
    if getattr(handler, "_min_slice_bytes_for_replica_parallel", None) is None:
        whole = ocp.type_handlers.ArrayHandler(
            min_slice_bytes_for_replica_parallel=_SMALLEST_PART,
            array_metadata_store=getattr(handler, "_array_metadata_store", None),
        )
        ocp.type_handlers.register_type_handler(jax.Array, whole, override=True)
