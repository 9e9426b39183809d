"""Absent devices that programs can be compiled for."""

import contextlib
import dataclasses
import importlib.util
import os
import re
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from pnoise_jax import models, parallel
from pnoise_jax.registry import did_you_mean
from pnoise_jax.studies.ahead_of_time.chips import CHIPS, Chip

# Without these, libtpu would look for the chips of a machine in Google's cloud, and wait.
_WITHOUT_CHIPS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # the lock protects chips, and there are none
}
_CUDA_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")


@dataclasses.dataclass(frozen=True, eq=False)
class Topology:
    """The devices to compile for.

    Attributes:
      name: the name passed to `open_topology`, such as "v5e:4x4", "h100:8", or "cpu:8".
      slices: number of slices, connected by the data center's network; for GPUs, of hosts.
      chip: the kind of chip; None for CPU devices.
      devices: the devices of all slices.
    """

    name: str
    slices: int
    chip: Chip | None
    devices: tuple[Any, ...]

    @property
    def description(self) -> str:
        """The devices in words."""
        slices = "hosts" if self.has_gpus else "slices"
        several = f"{self.slices} {slices} of " if self.slices > 1 else ""
        return f"{several}{self.name}, {len(self.devices)} devices"

    @property
    def has_gpus(self) -> bool:
        """Whether the devices are GPUs."""
        return self.chip is not None and self.chip.is_gpu

    def compiling(self) -> contextlib.AbstractContextManager[None]:
        """Returns the context in which to trace programs for these devices."""
        if self.chip is None:
            return contextlib.nullcontext()
        return models.compiling_for(self.devices[0])

    def mesh(self, fsdp: int = 1, tensor_parallel: int = 1) -> Mesh:
        """Makes the mesh of a training, as `parallel.training_mesh` does with real devices.

        Raises:
          ValueError: the devices do not divide into such groups, a group of ``fsdp`` would span
            several slices, or a group of ``tensor_parallel`` several hosts.
        """
        parallel.require_mesh(fsdp, tensor_parallel, len(self.devices))
        a_slice = len(self.devices) // self.slices
        if a_slice % (fsdp * tensor_parallel):
            and_shared = f" x tensor_parallel={tensor_parallel}" if tensor_parallel > 1 else ""
            raise ValueError(
                f"fsdp={fsdp}{and_shared} does not divide the {a_slice} devices of a "
                f"{'host' if self.has_gpus else 'slice'}: a group would exchange parameters over "
                f"the data center's network in every step; choose a divisor of {a_slice}"
            )
        return parallel.make_mesh(self.devices, fsdp, tensor_parallel)


def open_topology(name: str, *, slices: int = 1) -> Topology:
    """Opens a topology.

    Args:
      name: a kind of TPU chip and the shape of a slice, such as "v5e:4x4"; a kind of GPU and the
        number of GPUs in a host, such as "h100:8"; or "cpu:8" for eight CPU devices.
      slices: number of slices; for GPUs, of hosts.

    Raises:
      ValueError: there is no such topology, or libtpu or JAX's plugin for CUDA is missing.
    """
    kind, _, shape = name.partition(":")
    examples = ", ".join(chip.example for chip in CHIPS.values())
    if kind not in ("cpu", *CHIPS):
        raise ValueError(
            f"topology={name!r}: unknown kind of chip {kind!r}{did_you_mean(kind, CHIPS)}; give "
            f"one such as {examples}, or cpu:8"
        )
    if kind == "cpu":
        return _cpu_topology(name, shape, slices)
    chip = CHIPS[kind]
    if chip.is_gpu:
        return _gpu_topology(name, chip, shape, slices)
    sides = [int(side) for side in shape.split("x")] if re.fullmatch(r"\d+(x\d+)*", shape) else []
    if len(sides) != 1 + chip.example.count("x") or not all(0 < n <= chip.longest for n in sides):
        raise ValueError(  # libtpu would abort the process
            f"topology={name!r}: give the shape of a slice of {kind}, such as {chip.example}, with "
            f"sides of at most {chip.longest} chips"
        )
    _require_slices(slices)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"topology={name!r}: compiling for TPUs needs libtpu, which is not installed: "
            'pip install "pnoise_jax[tpu]", on any Linux machine'
        )
    for variable, value in _WITHOUT_CHIPS.items():
        os.environ.setdefault(variable, value)
    options = {"num_slices": slices} if slices > 1 else {}
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:  # libtpu may raise anything
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(
            f"topology={name!r} with slices={slices}: libtpu does not support it ({reason}); "
            f"examples are {examples}"
        ) from error
    return Topology(name, slices, chip, tuple(description.devices))


def _require_slices(slices: int) -> None:
    if slices < 1:
        raise ValueError(f"slices={slices}: give a number of at least 1")


def _gpu_topology(name: str, chip: Chip, shape: str, slices: int) -> Topology:
    if not re.fullmatch(r"\d+", shape) or not 0 < int(shape) <= chip.longest:
        raise ValueError(
            f"topology={name!r}: give the number of GPUs per host, {chip.name}:1 to "
            f"{chip.example}; slices is the number of hosts"
        )
    _require_slices(slices)
    chip.usable_memory()
    if not any(importlib.util.find_spec(plugin) for plugin in _CUDA_PLUGINS):
        raise ValueError(
            f"topology={name!r}: compiling for NVIDIA GPUs needs JAX's plugin for CUDA, which is "
            'not installed: pip install "pnoise_jax[cuda13]" (or cuda12), on any Linux machine'
        )
    try:  # partitions connected by NVLink x hosts in each x GPUs in each host
        description = topologies.get_topology_desc(
            platform="cuda", topology=f"{slices}x1x{int(shape)}", target_config=chip.target
        )
    except Exception as error:  # the plugin may raise anything
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(
            f"topology={name!r} with slices={slices}: JAX's plugin for CUDA cannot compile for it "
            f"({reason}); its version must match jax {jax.__version__}: pip install "
            f'"jax[cuda13]=={jax.__version__}" (or cuda12)'
        ) from error
    return Topology(name, slices, chip, tuple(description.devices))


def _cpu_topology(name: str, shape: str, slices: int) -> Topology:
    if not shape.isdecimal() or not int(shape) or slices != 1:
        raise ValueError(f"topology={name!r}, slices={slices}: give cpu:8, and a single slice")
    try:
        jax.config.update("jax_num_cpu_devices", int(shape))
    except RuntimeError as error:  # JAX has started
        if jax.device_count() < int(shape):
            raise ValueError(
                f"topology={name!r}: JAX has already started with {jax.device_count()} CPU devices"
            ) from error
    return Topology(name, slices, None, tuple(jax.devices("cpu")[: int(shape)]))
