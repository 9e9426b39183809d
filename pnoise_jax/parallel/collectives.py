"""What a compiled program exchanges between devices, read off its text."""

import collections
import dataclasses
import math
import re

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_LOOP = re.compile(r"\bwhile\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = ")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_LISTED_GROUP = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_GROUPS_BY_SHAPE = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_GROUPS_BY_AXES = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_DTYPES = {"pred": 1, "bf16": 2}


@dataclasses.dataclass(frozen=True)
class Collective:
    """Operations of one kind on arrays of one size.

    Attributes:
      kind: one of `KINDS`.
      devices: how many take part in one of them.
      size: bytes of the result on a device; of "reduce-scatter" those of what is reduced.
      count: how often a device takes part, in one run of the program.
    """

    kind: str
    devices: int
    size: int
    count: int

    @property
    def sent(self) -> float:
        """Bytes that a device sends in all, by the usual ring: at least what the kind needs."""
        share = (self.devices - 1) / self.devices
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return self.count * self.size * factor


def find_collectives(text: str, devices: int) -> list[Collective]:
    """The collectives of a compiled program, those that send most first.

    The bodies of loops count as often as they run, where the compiler knows it, else once. Of
    several kernels that carry out one operation together, as on TPUs, one counts.

    Args:
      text: `jax.stages.Compiled.as_text`.
      devices: that run the program.
    """
    lines, entry = _split_computations(text)
    found: collections.Counter[tuple[str, int, int]] = collections.Counter()
    seen: set[tuple[str, str]] = set()
    for computation, times in _count_runs(lines, entry).items():
        for line in lines[computation]:
            match = _COLLECTIVE.search(line)
            if match is None:
                continue
            result, kind, starts = match.groups()
            channel = _CHANNEL.search(line)
            if channel is not None:
                if (kind, channel[1]) in seen:
                    continue
                seen.add((kind, channel[1]))
            size, group = _size_of(result, kind, bool(starts)), _group_size(line, devices)
            size *= group if kind == "reduce-scatter" else 1
            if group > 1 and size:
                found[kind, group, size] += times
    every = [Collective(*key, count) for key, count in found.items()]
    return sorted(every, key=lambda each: -each.sent)


def _split_computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The instructions of each computation by its name, and the name of the entry."""
    lines: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            name = match[2]
            lines[name] = []
            entry = name if match[1] else entry
        elif name:
            lines[name].append(line)
    return lines, entry


def _count_runs(lines: dict[str, list[str]], entry: str) -> collections.Counter[str]:
    """How often each computation runs when the entry runs once."""
    runs: collections.Counter[str] = collections.Counter()

    def visit(name: str, times: int) -> None:
        runs[name] += times
        for line in lines.get(name, ()):
            each = times * _count_trips(line, lines)
            called = _CALLED.findall(line)
            for branches in _BRANCHES.findall(line):
                called += [branch.strip().lstrip("%") for branch in branches.split(",")]
            for other in called:
                if other in lines:
                    visit(other, each)

    visit(entry, 1)
    return runs


def _count_trips(line: str, lines: dict[str, list[str]]) -> int:
    """How often the body of a loop runs; 1 of other instructions, and where it cannot be known."""
    if match := _TRIPS.search(line):
        return int(match[1])
    if (match := _LOOP.search(line)) is None:
        return 1
    condition, body = (_by_name(lines.get(name, [])) for name in match.groups())
    # ROOT compare(get-tuple-element(parameter), index=i, constant(n)), direction=LT
    compared = [condition.get(name, "") for name in _operands(condition.get("ROOT", ""))]
    indices = [int(i) for text in compared for i in re.findall(r"\bindex=(\d+)", text)]
    limits = [int(n) for text in compared for n in re.findall(r"\bconstant\((\d+)\)", text)]
    if "direction=LT" not in condition.get("ROOT", "") or len(indices) != 1 or len(limits) != 1:
        return 1
    # and in the body ROOT tuple(..., add(counter, constant(step)), ...)
    results = _operands(body.get("ROOT", ""))
    added = _operands(body.get(results[indices[0]], "")) if indices[0] < len(results) else []
    steps = [
        int(n) for name in added for n in re.findall(r"\bconstant\((\d+)\)", body.get(name, ""))
    ]
    return -(-limits[0] // steps[0]) if steps and steps[0] else limits[0]


def _by_name(lines: list[str]) -> dict[str, str]:
    """Instructions by their names, and the last one as "ROOT"."""
    named: dict[str, str] = {}
    for line in lines:
        if match := _INSTRUCTION.match(line):
            named["ROOT" if match[1] else match[2]] = line
    return named


def _operands(line: str) -> list[str]:
    """The names between the parentheses of an instruction."""
    match = re.search(r"\s[a-z][\w\-]*\((%[^)]*)\)", line)
    return _OPERAND.findall(match[1]) if match else []


def _size_of(result: str, kind: str, starts: bool) -> int:
    """Bytes of the result; what starts an operation returns operands and results together."""
    sizes = [_bytes(dtype, shape) for dtype, shape in _ARRAY.findall(result)]
    if not starts or kind == "all-reduce":
        return sum(sizes)
    if kind == "collective-permute":
        return sizes[0]
    return sum(sizes[len(sizes) // 2 :])


def _bytes(dtype: str, shape: str) -> int:
    width = _DTYPES.get(dtype)
    if width is None:
        bits = re.search(r"\d+", dtype)
        width = int(bits[0]) / 8 if bits else 0  # f8e4m3 has 8 bits, and a token none
    return int(width * math.prod(int(n) for n in shape.split(",") if n))


def _group_size(line: str, devices: int) -> int:
    if match := _LISTED_GROUP.search(line):
        return len(match[1].split(","))
    if match := _GROUPS_BY_SHAPE.search(line):
        return int(match[2])
    if match := _GROUPS_BY_AXES.search(line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", match[2]))
    return devices
