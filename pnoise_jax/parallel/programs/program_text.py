"""The text of a compiled program: its computations, how often they run, and their arrays."""

import collections
import dataclasses
import math
import re
from collections.abc import Callable

ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_LOOP = re.compile(r"\bwhile\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%?([\w.\-]+) = ")
_OPERAND = re.compile(r"%([\w.\-]+)")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_DTYPES = {"pred": 1, "bf16": 2}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation.

    Attributes:
      name: without "%".
      is_root: whether it computes the computation's result.
      type: of its result, with layouts, such as "f32[2,3]{1,0}"; of a tuple, in parentheses.
      opcode: such as "fusion" or "dot"; the start of an asynchronous operation ends in "-start".
      operands: names of instructions.
      line: the whole line.
    """

    name: str
    is_root: bool
    type: str
    opcode: str
    operands: tuple[str, ...]
    line: str

    @property
    def result(self) -> str:
        """The type of the value that it computes."""
        return result_type(self.type, self.opcode)


def parse(line: str) -> Instruction | None:
    """The instruction on a line; None if there is none."""
    match = _INSTRUCTION.match(line)
    if match is None:
        return None
    begins = match.end()
    ends = _closing(line, begins) + 1 if line[begins] == "(" else line.find(" ", begins)
    opcode = _OPCODE.match(line, ends) if ends > 0 else None
    if opcode is None:
        return None
    operands = _OPERAND.findall(line, opcode.end(), _closing(line, opcode.end() - 1))
    root, name = bool(match[1]), match[2]
    return Instruction(name, root, line[begins:ends], opcode[1], tuple(operands), line)


def _closing(line: str, place: int) -> int:
    """The position at which the parenthesis that opens at `place` closes."""
    depth = 0
    for at in range(place, len(line)):
        depth += (line[at] == "(") - (line[at] == ")")
        if not depth:
            return at
    return len(line)


def split_computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation, by its name, and the name of the entry computation.

    Args:
      text: `jax.stages.Compiled.as_text`.
    """
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


def count_runs(
    lines: dict[str, list[str]], entry: str, calls: Callable[[str], bool] = lambda line: True
) -> collections.Counter[str]:
    """How often each computation runs when the entry runs once.

    The body of a loop counts once if its number of iterations is unknown; all branches of a
    condition count.

    Args:
      lines, entry: as `split_computations` returns them.
      calls: which instructions to follow into the computations that they name; by default all.
    """
    runs: collections.Counter[str] = collections.Counter()

    def visit(name: str, times: int) -> None:
        runs[name] += times
        for line in filter(calls, lines.get(name, ())):
            each = times * _count_trips(line, lines)
            for other in called(line):
                if other in lines:
                    visit(other, each)

    visit(entry, 1)
    return runs


def called(line: str) -> list[str]:
    """The computations that an instruction names."""
    names = _CALLED.findall(line)
    for branches in _BRANCHES.findall(line):
        names += [branch.strip().lstrip("%") for branch in branches.split(",")]
    return names


def _count_trips(line: str, lines: dict[str, list[str]]) -> int:
    """How often the body of a loop runs; 1 for other instructions, and if it is unknown."""
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


def result_type(type_: str, opcode: str) -> str:
    """The type of the value that an instruction computes.

    Starts of asynchronous operations return (operands, results...). Those of an all-reduce do so
    in jax 0.11.2, with the operands as a tuple; in 0.10.2 they return only the results, of which
    there may be several.
    """
    if not opcode.endswith("-start") or not type_.startswith("("):
        return type_
    if opcode == "all-reduce-start" and not type_.startswith("(("):
        return type_
    return elements(type_)[1]


def elements(shape: str) -> list[str]:
    """The elements of a tuple's type, which may be tuples themselves."""
    parts, depth = [""], 0
    for letter in shape[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def array_bytes(dtype: str, shape: str) -> int:
    """Bytes of an array, such as ("bf16", "256,768")."""
    width = _DTYPES.get(dtype)
    if width is None:
        bits = re.search(r"\d+", dtype)
        width = int(bits[0]) / 8 if bits else 0  # f8e4m3 has 8 bits, and a token none
    return int(width * math.prod(int(n) for n in shape.split(",") if n))


def type_bytes(result: str) -> int:
    """Bytes of all arrays of a type, which may be a tuple."""
    return sum(array_bytes(dtype, shape) for dtype, shape in ARRAY.findall(result))
