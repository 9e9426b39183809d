"""The collectives with which a compiled program exchanges data, read from its text."""

import collections
import dataclasses
import math
import re

import numpy as np

from pnoise_jax.parallel.programs import program_text
from pnoise_jax.parallel.programs.program_text import ARRAY, type_bytes

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_CHAIN = "chain_id="  # on kernels that jointly carry out one operation
# The TPU compiler writes a reduce-scatter as a computation of this name: an all-reduce of which it
# keeps a slice. One kernel carries it out, and sends half as much as an all-reduce.
_REDUCE_SCATTER = "all-reduce-scatter"
_PAIRS = re.compile(r"source_target_pairs=\{(.*?)\}\}")
_LISTED_GROUPS = re.compile(r"replica_groups=\{(\{.*?\})\}")
_GROUPS_BY_SHAPE = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_GROUPS_BY_AXES = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}"
)
# Between TPU slices, a host sends for its devices; the first braces list the slices.
_BETWEEN_SLICES = re.compile(
    r"= \((.*?), u32\[\].* send\("
    r'.*_xla_megascale_target="\{([\d,:]+)\}x.*_xla_megascale_transfer_type="(\w+)"'
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """Operations of one kind on arrays of one size.

    Attributes:
      kind: one of `KINDS`.
      devices: number of devices that take part in each.
      size: bytes of the result on a device; for "reduce-scatter", of the input.
      count: how often a device takes part in one run of the program.
      groups: the devices that exchange data with each other, by their places in the mesh.
      dtype: of the exchanged data, as XLA names it, such as "f32"; several are joined by "+".
    """

    kind: str
    devices: int
    size: int
    count: int
    groups: tuple[tuple[int, ...], ...] = dataclasses.field(default=(), compare=False, repr=False)
    dtype: str = dataclasses.field(default="", compare=False)

    @property
    def sent(self) -> float:
        """Bytes that a device sends with the usual ring algorithm: the least that suffices."""
        share = (self.devices - 1) / self.devices
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return self.count * self.size * factor

    def is_between(self, slices: int, devices: int) -> bool:
        """Whether data only goes between slices: no two of a group are in the same slice."""
        a_slice = devices // slices
        return slices > 1 and all(
            len({place // a_slice for place in group}) == len(group) for group in self.groups
        )

    def sent_between(self, slices: int, devices: int) -> float:
        """The fewest bytes that a device sends to other slices: its share of its slice's total.

        Args:
          slices: number of slices, of equally many devices each, in the order of the mesh.
          devices: number of devices in all slices.
        """
        a_slice = devices // slices
        most = 0.0
        for group in self.groups:
            reached = {place // a_slice for place in group}
            if len(reached) == 1:
                continue
            share = (len(reached) - 1) / len(reached) * (2 if self.kind == "all-reduce" else 1)
            if self.kind == "collective-permute":
                most = max(most, float(self.size))
            else:
                most = max(most, self.size * share * len(reached) / len(group))
        return self.count * most


def find_collectives(text: str, devices: int) -> list[Collective]:
    """The collectives of a compiled program, those that send most first.

    The bodies of loops count as often as they run if the compiler knows that, otherwise once. If
    several kernels jointly carry out one operation, as on TPUs, one of them counts.

    Args:
      text: `jax.stages.Compiled.as_text`.
      devices: number of devices that run the program.
    """
    lines, entry = program_text.split_computations(text)
    counts: collections.Counter[tuple] = collections.Counter()
    seen: set[tuple[str, str]] = set()
    for computation, times in program_text.count_runs(lines, entry).items():
        for line in lines[computation]:
            if match := _BETWEEN_SLICES.search(line):
                counts[_between_slices(*match.groups(), devices=devices)] += times
                continue
            match = _COLLECTIVE.search(line)
            if match is None:
                continue
            result, kind, starts = match.groups()
            channel = _CHANNEL.search(line)
            if channel is not None and _CHAIN in line:  # without a chain, programs reuse numbers
                if (kind, channel[1]) in seen:
                    continue
                seen.add((kind, channel[1]))
            result = program_text.result_type(result, kind + (starts or ""))
            size, groups = type_bytes(result), _groups(line, devices)
            group = devices if kind == "collective-permute" else max(map(len, groups), default=1)
            size *= group if kind == "reduce-scatter" else 1
            if kind == "all-reduce" and computation.startswith(_REDUCE_SCATTER):
                kind = "reduce-scatter"
            if group > 1 and size:
                counts[kind, group, size, groups, _dtypes(result)] += times
    every = [
        Collective(kind, group, size, count, groups, dtype)
        for (kind, group, size, groups, dtype), count in counts.items()
    ]
    return sorted(every, key=lambda each: -each.sent)


def _between_slices(sent: str, slices: str, kind: str, *, devices: int) -> tuple:
    """Kind, slices, size, groups and dtype of a device's transfer to its peers in other slices."""
    ends = [[int(end) for end in part.split(":")] for part in slices.split(",")]
    count = sum(last - first + 1 for first, *_, last in (2 * end for end in ends))
    name = kind.lower().replace("_", "-")
    name = name if name in KINDS else "collective-permute"
    a_slice = devices // count
    groups = tuple(tuple(range(place, devices, a_slice)) for place in range(a_slice))
    size = type_bytes(sent)
    return name, count, size * (count if name == "all-gather" else 1), groups, _dtypes(sent)


def _dtypes(result: str) -> str:
    """The dtypes of an operation's result, without those of scalars that TPUs add to it."""
    dtypes = {dtype for dtype, shape in ARRAY.findall(result) if shape}
    return "+".join(sorted(dtypes)) or "+".join(sorted({d for d, _ in ARRAY.findall(result)}))


def _groups(line: str, devices: int) -> tuple[tuple[int, ...], ...]:
    """The devices that exchange data with each other, by their places in the mesh."""
    if match := _PAIRS.search(line):
        return tuple(tuple(map(int, pair.split(","))) for pair in re.findall(r"\d+,\d+", match[1]))
    if match := _LISTED_GROUPS.search(line):
        return tuple(
            tuple(map(int, group.split(","))) for group in re.findall(r"\d[\d,]*", match[1])
        )
    if match := _GROUPS_BY_SHAPE.search(line):
        count, size, dimensions, order = match.groups()
        return _rows(_numbered(devices, dimensions, order).reshape(int(count), int(size)))
    if match := _GROUPS_BY_AXES.search(line):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        chosen = re.findall(r"'([^']+)'", match[4])
        numbered = _numbered(devices, match[2] or str(devices), match[3])
        places = numbered.reshape(list(sizes.values()))
        last = [list(sizes).index(axis) for axis in chosen]
        places = np.moveaxis(places, last, range(-len(last), 0))
        return _rows(places.reshape(-1, math.prod(sizes[axis] for axis in chosen)))
    return (tuple(range(devices)),)


def _numbered(devices: int, dimensions: str, order: str | None) -> np.ndarray:
    """Places in the mesh, in an order given as array dimensions and a permutation of them."""
    places = np.arange(devices).reshape([int(n) for n in dimensions.split(",")])
    return places.transpose([int(n) for n in order.split(",")]) if order else places


def _rows(places: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(place) for place in row) for row in places)
