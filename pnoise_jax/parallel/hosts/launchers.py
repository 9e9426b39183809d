"""Finds the other processes from the environment: its variables, Slurm, TPU pods or Open MPI."""

import dataclasses
import os
import re
from collections.abc import Mapping

_ADDRESS, _COUNT, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_LOCAL_IDS = "JAX_LOCAL_DEVICE_IDS"
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of this process among the others.

    Attributes:
      address: of the coordinator, which process 0 runs: "host:port".
      count: number of processes.
      index: number of this process, from 0.
      local_device_ids: the devices of this machine that it uses; None for all visible ones.
    """

    address: str
    count: int
    index: int
    local_device_ids: tuple[int, ...] | None = None

    @property
    def host(self) -> str:
        """The host of the address, without brackets around IPv6."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port of the address."""
        return int(self.address.rpartition(":")[2])


def find_place(
    environment: Mapping[str, str] = os.environ, *, multi_host: bool = False, timeout: float = 300
) -> Place | None:
    """The place of this process; None if there are no others.

    Args:
      environment: the environment variables.
      multi_host: whether there are other hosts, which JAX should detect.
      timeout: seconds that JAX may take to find the coordinator.

    Raises:
      ValueError: the variables are incomplete or contradict each other; or this is one of several
        tasks, but nothing says that they belong together.
    """
    if environment.get(_ADDRESS) is not None:
        return _named(environment)
    for name in (_COUNT, _INDEX):
        if environment.get(name, "") not in ("", "1" if name == _COUNT else "0"):
            raise ValueError(
                f"{name}={environment[name]!r} without {_ADDRESS}: every process would train "
                f"alone; set {_ADDRESS}=HOST:PORT of process 0 as well, or unset {name}"
            )
    if multi_host:
        return _detected(environment, timeout)
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        # Not SLURM_NTASKS: a batch script, or a shell in an allocation, is a single process.
        if environment.get(name, "1") != "1":
            raise ValueError(
                f"{name}={environment[name]}: this is one of several tasks; add --multi_host "
                "so that they train together, or start a single one"
            )
    return None


def _named(environment: Mapping[str, str]) -> Place:
    address = environment[_ADDRESS]
    count, index = environment.get(_COUNT), environment.get(_INDEX)
    settings = f"{_ADDRESS}={address!r} with {_COUNT}={count!r} and {_INDEX}={index!r}"
    try:
        numbers = int(count or ""), int(index or "")
    except ValueError:
        raise ValueError(
            f"{settings}: set the number of processes and the number of this one, from 0, as well"
        ) from None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{settings}: give the address as HOST:PORT, such as 10.0.0.1:1234")
    if not 0 <= numbers[1] < numbers[0]:
        raise ValueError(f"{settings}: processes are numbered from 0 to {_COUNT} - 1")
    return Place(address, *numbers, _local_devices(environment))


def _detected(environment: Mapping[str, str], timeout: float) -> Place:
    """The place that JAX detects, except for the devices of Slurm's tasks."""
    from jax._src import clusters  # as in jax.distributed.initialize; there is no public API

    address, count, index, local = clusters.ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, int(timeout)
    )
    if address is None or count is None or index is None:
        slurm = any(name.startswith("SLURM_") for name in environment)
        how = (
            "under Slurm, start the program through srun, which numbers the tasks"
            if slurm
            else "it supports Slurm, Open MPI, Cloud TPU pods and Kubernetes"
        )
        raise ValueError(
            f"--multi_host: JAX found no other hosts ({how}). Otherwise set {_ADDRESS}=HOST:PORT, "
            f"{_COUNT} and {_INDEX} on each, or leave out --multi_host to train on this one alone"
        )
    if environment.get(_LOCAL_IDS) or "SLURM_LOCALID" in environment:
        local = _local_devices(environment)
    return Place(address, count, index, None if local is None else tuple(local))


def _local_devices(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """The devices that this process uses: all visible ones, unless other tasks see them as well."""
    named = environment.get(_LOCAL_IDS)
    if named:
        try:
            return tuple(int(part) for part in named.split(","))
        except ValueError:
            raise ValueError(f"{_LOCAL_IDS}={named!r}: give numbers such as 0,1,2,3") from None
    if not environment.get("SLURM_LOCALID", "").isdecimal():
        return None
    tasks, local = _tasks_on_node(environment), int(environment["SLURM_LOCALID"])
    if tasks == 1:
        return None
    visible, total = _visible_devices(environment), environment.get("SLURM_GPUS_ON_NODE", "")
    total = int(total) if total.isdecimal() else None
    if visible is None:
        visible = total
    if visible is None:
        return (local,)  # what JAX assumes
    if visible < tasks or (total is not None and visible * tasks == total):
        return tuple(range(visible))  # Slurm has bound each task to its own devices
    share, rest = divmod(visible, tasks)
    if rest:
        raise ValueError(
            f"{tasks} tasks on this node see {visible} devices, which do not divide evenly: set "
            f"{_LOCAL_IDS} for each task, or start a different number of tasks"
        )
    return tuple(range(local * share, (local + 1) * share))


def require_whole_node(used: int, environment: Mapping[str, str] = os.environ) -> None:
    """Raises ValueError if the tasks of this node leave GPUs idle that Slurm has allocated.

    Args:
      used: the GPUs that this task uses.
      environment: the environment variables.
    """
    allocated = environment.get("SLURM_GPUS_ON_NODE", "")
    if environment.get(_LOCAL_IDS) or not allocated.isdecimal():
        return
    tasks = _tasks_on_node(environment) if "SLURM_LOCALID" in environment else 1
    if 0 < used * tasks < int(allocated):
        raise ValueError(
            f"SLURM_GPUS_ON_NODE={allocated}, but the {tasks} task(s) of this node use {used} "
            f"GPU(s) each: start {int(allocated) // used} tasks on each node, or let one task "
            "see all GPUs (--gres, not --gpus-per-task), or request fewer from Slurm"
        )


def _visible_devices(environment: Mapping[str, str]) -> int | None:
    for name in _VISIBLE:
        if environment.get(name):
            return len(environment[name].split(","))
    return None


def _tasks_on_node(environment: Mapping[str, str]) -> int:
    """The tasks on this node, from a list such as "8(x2),4": 8, 8 and 4 tasks on three nodes."""
    listed = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get(
        "SLURM_TASKS_PER_NODE", "1"
    )
    counts: list[int] = []
    for part in listed.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise ValueError(f"SLURM_STEP_TASKS_PER_NODE={listed!r} is not a list of task counts")
        counts += [int(match[1])] * int(match[2] or 1)
    node = int(environment.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else counts[-1]
