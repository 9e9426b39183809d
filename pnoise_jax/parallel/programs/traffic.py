"""Bytes that a compiled program reads from and writes to memory, counted from its text."""

import re
from collections.abc import Sequence

from pnoise_jax.parallel.programs import program_text
from pnoise_jax.parallel.programs.program_text import Instruction

# Instructions that move no data themselves; computations that the first three run are counted.
_ENTERED = ("call", "conditional", "while")
_FREE = {
    *_ENTERED,
    "add-dependency",
    "after-all",
    "bitcast",
    "constant",
    "domain",
    "get-tuple-element",
    "opt-barrier",
    "parameter",
    "partition-id",
    "recv",
    "replica-id",
    "send",
    "tuple",
}
_SLICES = ("dynamic-slice", "gather", "slice")
_PLACED_ARRAY = re.compile(program_text.ARRAY.pattern + r"(?:\{([^}]*)\})?")
_SCRATCH = re.compile(r"[su]8\[\d*\]")  # of a library's kernel, listed with its results
_NUMBER = re.compile(r"parameter\((\d+)\)")


def count_traffic(text: str) -> int:
    """Bytes that a device reads from and writes to its memory in one run of the program.

    Each kernel reads its operands once and writes its results once: arrays that stay in a cache
    from one kernel to the next count, and repeated reads within a kernel count once. If a kernel
    takes slices of an array, or updates a part of it in place, only those parts count. Bodies of
    loops count as often as they run if the compiler knows that, otherwise once; all branches of a
    condition count. Arrays in the vector memory of TPUs do not count.

    Args:
      text: `jax.stages.Compiled.as_text`.
    """
    lines, entry = program_text.split_computations(text)
    parsed = {name: _parse_all(computation) for name, computation in lines.items()}
    total = 0
    for name, times in program_text.count_runs(lines, entry, _enters).items():
        types = _types(parsed[name])
        total += times * sum(_moved(each, types, parsed) for each in parsed[name])
    return total


def _parse_all(lines: Sequence[str]) -> list[Instruction]:
    return [each for each in map(program_text.parse, lines) if each is not None]


def _types(instructions: Sequence[Instruction]) -> dict[str, str]:
    return {each.name: each.type for each in instructions}


def _enters(line: str) -> bool:
    instruction = program_text.parse(line)
    return instruction is not None and instruction.opcode in _ENTERED


def _bytes(type_: str) -> int:
    """Bytes of a type's arrays, except those in a TPU's vector memory, S(1)."""
    return sum(
        program_text.array_bytes(dtype, shape)
        for dtype, shape, layout in _PLACED_ARRAY.findall(type_)
        if not ("T(" in layout and "S(1)" in layout)
    )


def _moved(
    instruction: Instruction, types: dict[str, str], parsed: dict[str, list[Instruction]]
) -> int:
    """Bytes that one instruction reads and writes."""
    opcode, operands = instruction.opcode, instruction.operands
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    sizes = {name: _bytes(types.get(name, "")) for name in operands}
    if opcode == "fusion":
        fused = next((parsed[name] for name in program_text.called(instruction.line)), [])
        return _read_by(fused, [sizes[name] for name in operands], operands) + _written_by(fused)
    result = _bytes(instruction.result)
    if opcode in _SLICES:
        return 2 * result + sum(sizes[name] for name in operands[1:])
    if opcode == "dynamic-update-slice":
        return 2 * sizes[operands[1]]
    if opcode == "custom-call" and instruction.type.startswith("("):
        elements = map(str.strip, program_text.elements(instruction.type))
        result = sum(_bytes(each) for each in elements if not _SCRATCH.match(each))
    return result + sum(sizes.values())


def _read_by(fused: Sequence[Instruction], sizes: Sequence[int], operands: Sequence[str]) -> int:
    """Bytes that a fusion reads from its operands, which have these sizes."""
    parameters = {
        int(match[1]): each.name
        for each in fused
        if each.opcode == "parameter" and (match := _NUMBER.search(each.line))
    }
    updates = _updates(fused)
    read: dict[str, int] = {}
    for place, (operand, size) in enumerate(zip(operands, sizes, strict=True)):
        name = parameters.get(place)
        used = size if name is None else _used(name, fused, updates)
        read[operand] = min(size, read.get(operand, 0) + (size if used is None else used))
    return sum(read.values())


def _used(parameter: str, fused: Sequence[Instruction], updates: dict[str, int]) -> int | None:
    """Bytes of the slices that a fusion takes of a parameter; None if it reads all of it."""
    views, total = {parameter}, 0
    for each in fused:  # operands come before the instructions that use them
        if views.isdisjoint(each.operands):
            continue
        alone = each.operands[0] in views and views.isdisjoint(each.operands[1:])
        if each.opcode == "bitcast" and not each.is_root:
            views.add(each.name)
        elif each.opcode in _SLICES and alone:
            total += _bytes(each.type)
        elif each.name not in updates or not alone:
            return None
    return total


def _updates(fused: Sequence[Instruction]) -> dict[str, int]:
    """The in-place updates among a fusion's results, and the bytes of each update."""
    named = {each.name: each for each in fused}
    return {
        each.name: _bytes(named[each.operands[1]].type)
        for each in _results(fused)
        if each.opcode == "dynamic-update-slice"
    }


def _results(fused: Sequence[Instruction]) -> list[Instruction]:
    """The instructions that compute a fusion's results, below any bitcasts."""
    named = {each.name: each for each in fused}
    results = [each for each in fused if each.is_root]
    if results and results[0].opcode == "tuple":
        results = [named[name] for name in results[0].operands]
    below = []
    for result in results:
        while result.opcode == "bitcast" and result.operands:
            result = named[result.operands[0]]
        below.append(result)
    return below


def _written_by(fused: Sequence[Instruction]) -> int:
    updates = _updates(fused)
    return sum(updates.get(each.name, _bytes(each.type)) for each in _results(fused))
