"""The order of the devices in the mesh: each host reads one contiguous part of a batch."""

import dataclasses

import pytest

from pnoise_jax import parallel


@dataclasses.dataclass(frozen=True)
class Chip:
    """A stand-in for a device of a TPU pod."""

    id: int
    process_index: int
    coords: tuple[int, int, int]
    device_kind: str
    core_on_chip: int = 0
    slice_index: int = 0
    platform: str = "tpu"
    client: None = None


def pod(kind, width, height, depth=1):
    """The chips of a pod whose hosts have 2 x 2 chips each, host after host."""
    chips = []
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                host = x // 2 + width // 2 * (y // 2 + height // 2 * z)
                chips.append(Chip(len(chips), host, (x, y, z), kind))
    return sorted(chips, key=lambda chip: chip.process_index)


@pytest.mark.parametrize(
    "chips",
    [
        pod("TPU v5 lite", 2, 4),
        pod("TPU v5 lite", 4, 4),
        pod("TPU v6 lite", 16, 16),
        pod("TPU v4", 2, 2, 4),
        pod("TPU v5", 4, 4, 4),
    ],
    ids=lambda chips: f"{chips[0].device_kind}: {len(chips)}",
)
@pytest.mark.parametrize("fsdp", [1, 4])
def test_the_devices_of_a_host_are_contiguous_and_hosts_in_order(chips, fsdp):
    mesh = parallel.make_mesh(chips, fsdp)
    hosts = [chip.process_index for chip in mesh.devices.flat]
    assert hosts == sorted(hosts)
