"""The TPU chips and GPUs that programs can be compiled for."""

import dataclasses
import os

from pnoise_jax.studies.ahead_of_time import gpus

MEMORY_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # fraction of a GPU that JAX allocates


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of TPU chip or GPU.

    Attributes:
      name: the name used in topologies.
      memory: device memory in GiB. For a TPU chip, the memory that programs can use, as libtpu
        reports it when a program does not fit.
      flops: peak bfloat16 operations per second, without sparsity.
      memory_bandwidth: bytes per second between the chip and its memory.
      link_bandwidth: bytes per second that it sends within a slice, over all links; for GPUs,
        within a host.
      network_bandwidth: bytes per second that it sends to other slices; None if unknown.
      longest: the longest side of a slice, in chips; for GPUs, the number of GPUs in a host.
      example: a topology of such chips.
      target: the properties of a GPU in the text format of XLA's compiler; None for TPUs.
    """

    name: str
    memory: float
    flops: float
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float | None
    longest: int
    example: str
    target: str | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether it is an NVIDIA GPU rather than a TPU chip."""
        return self.target is not None

    def usable_memory(self) -> float:
        """Returns the memory in GiB that programs can use; for a GPU, the part that JAX allocates.

        Raises:
          ValueError: the environment variable is not a number above 0 and at most 1.
        """
        if not self.is_gpu:
            return self.memory
        value = os.environ.get(MEMORY_FRACTION, "0.75")
        try:
            fraction = float(value)
        except ValueError:
            fraction = 0.0
        if not 0 < fraction <= 1:
            raise ValueError(
                f"{MEMORY_FRACTION}={value!r}: give the part of a GPU's memory that JAX "
                "allocates, such as 0.9, or unset it for JAX's default, 0.75"
            )
        return self.memory * fraction


# TPUs: from the page of each generation at docs.cloud.google.com/tpu/docs; the network bandwidth is
# that of a pod's data center network divided by its chips. GPUs: from NVIDIA's data sheets of the
# SXM modules, with NVLink in one direction, and of DGX hosts, which have a network adapter for each
# GPU; memory as reported by PyTorch, for the A100 assumed equal to the H100.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", 15.75, 197e12, 819e9, 1600e9 / 8, 6.4e12 / 8 / 256, 16, "v5e:4x4"),
        Chip("v5p", 95.74, 459e12, 2765e9, 4800e9 / 8, None, 24, "v5p:2x2x2"),
        Chip("v6e", 31.25, 918e12, 1640e9, 3584e9 / 8, 25.6e12 / 8 / 256, 16, "v6e:4x4"),
        Chip("a100", 79.1, 312e12, 2.039e12, 300e9, 25e9, 8, "a100:8", gpus.A100),
        Chip("h100", 79.1, 989e12, 3.35e12, 450e9, 50e9, 8, "h100:8", gpus.H100),
        Chip("h200", 139.8, 989e12, 4.8e12, 450e9, 50e9, 8, "h200:8", gpus.H200),
    )
}
