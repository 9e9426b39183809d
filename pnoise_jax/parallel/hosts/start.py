"""Starting on several hosts: all processes arrive, then JAX connects them."""

import sys
from collections.abc import Callable

import jax

from pnoise_jax.parallel.hosts import arrivals, endings, hosts
from pnoise_jax.parallel.hosts.launchers import find_place, require_whole_node
from pnoise_jax.terminal import say


def start(
    *, multi_host: bool = False, timeout: float = 600, report: Callable[[str], None] | None = None
) -> None:
    """Joins the other hosts, if there are any; call it before anything touches a device.

    The variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID describe them;
    otherwise JAX detects them, on Cloud TPU pods and under Slurm and Open MPI.

    Args:
      multi_host: whether there are other hosts, which JAX should detect.
      timeout: seconds to wait for the others; the missing ones are named every minute.
      report: called with a sentence that names the missing ones; by default it is printed to
        stderr.

    Raises:
      ValueError: some of the three variables are missing or not numbers; two processes have the
        same number; this is one of several tasks, but --multi_host is not set; or GPUs of this node
        would stay idle.
      TimeoutError: some host has not arrived; the message says which.
      OSError: the coordinator's port cannot be used.
    """
    place = find_place(multi_host=multi_host, timeout=timeout)
    if place is None:
        return
    if report is None:
        report = _to_stderr
    arrivals.meet(place, timeout=timeout, report=report)
    local = place.local_device_ids
    jax.distributed.initialize(
        place.address,
        place.count,
        place.index,
        local_device_ids=None if local is None else list(local),
        cluster_detection_method="deactivate",  # otherwise JAX uses one device per Slurm task
        # After this time JAX kills the process without naming the missing ones; all are here now.
        initialization_timeout=max(60, int(timeout)),
    )
    if jax.default_backend() == "gpu" and local is None:
        require_whole_node(jax.local_device_count())
    if place.count > 1:
        endings.name_lost_hosts_at_abort(hosts.introduce(place.address, report=report))


def _to_stderr(sentence: str) -> None:
    say(sentence, file=sys.stderr)
