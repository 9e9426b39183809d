"""The chips that programs can be compiled for."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of TPU chip.

    Attributes:
      name: as in topologies.
      memory: GiB that programs can use, as libtpu reports when one does not fit.
      flops: peak bfloat16 operations per second.
      memory_bandwidth: bytes per second between the chip and its memory.
      link_bandwidth: bytes per second that it sends to its neighbours, over all links.
      network_bandwidth: bytes per second that it sends to other slices; None if unknown.
      longest: the longest side of a slice, in chips.
      example: a topology of such chips.
    """

    name: str
    memory: float
    flops: float
    memory_bandwidth: float
    link_bandwidth: float
    network_bandwidth: float | None
    longest: int
    example: str


# From the pages of the generations at docs.cloud.google.com/tpu/docs; a pod's data center network
# divided by its chips.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", 15.75, 197e12, 819e9, 1600e9 / 8, 6.4e12 / 8 / 256, 16, "v5e:4x4"),
        Chip("v5p", 95.74, 459e12, 2765e9, 4800e9 / 8, None, 24, "v5p:2x2x2"),
        Chip("v6e", 31.25, 918e12, 1640e9, 3584e9 / 8, 25.6e12 / 8 / 256, 16, "v6e:4x4"),
    )
}
