"""Reports what compiled steps need, as tables, sentences and JSON."""

import dataclasses
from typing import Any

from rich import box
from rich.table import Table

from pnoise_jax.studies.ahead_of_time.compiling import Needs
from pnoise_jax.studies.ahead_of_time.outcome import Outcome
from pnoise_jax.studies.ahead_of_time.topologies import Topology

_GIB, _MIB = 2**30, 2**20
_SHOWN = 8  # collectives listed; there may be many more


def table(needs: Needs, topology: Topology) -> Table:
    """Makes a table of the memory, operations, traffic and exchanges of one program."""
    result = Table(box=box.SIMPLE, show_header=False, title=f"{needs.program}, per device")
    chip, memory = topology.chip, f"{needs.memory / _GIB:.2f} GiB"
    if chip is not None:
        memory += f" of {chip.usable_memory():.2f} GiB"
    examples = needs.shared * needs.examples / len(topology.devices)
    rows = [
        ("examples", f"{examples:g} of {needs.examples}"),
        ("memory", memory),
        ("kept between steps", f"{needs.state / _GIB:.3f} GiB"),
        ("operations, at least", f"{needs.flops / 1e12:.3f} TFLOP"),
        ("memory traffic, at least", f"{needs.traffic / _GIB:.2f} GiB"),
        ("sent to others", f"{needs.sent / _MIB:.2f} MiB"),
        ("compiled in", f"{needs.seconds:.0f} s"),
    ]
    for row in rows:
        result.add_row(*row)
    return result


def collectives_table(needs: Needs) -> Table:
    """Makes a table of the largest exchanges between devices."""
    result = Table(
        "exchange", "dtype", "devices", box=box.SIMPLE, title=f"exchanges of the {needs.program}"
    )
    for name in ("times", "KiB each", "MiB sent"):
        result.add_column(name, justify="right")
    for each in needs.collectives[:_SHOWN]:
        size, sent = f"{each.size / 1024:,.1f}", f"{each.sent / _MIB:,.3f}"
        result.add_row(each.kind, each.dtype, str(each.devices), str(each.count), size, sent)
    if rest := needs.collectives[_SHOWN:]:
        sent = sum(each.sent for each in rest)
        result.add_row(f"{len(rest)} more kinds", "", "", "", "", f"{sent / _MIB:,.3f}")
    return result


def describe_bound(needs: Needs, topology: Topology) -> str:
    """Describes the lower bounds on a call's time; "" if nothing is known about the devices."""
    bounds = needs.bounds(topology)
    if not bounds:
        return ""
    slowest = max(bounds, key=lambda name: bounds[name])
    each = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in bounds.items())
    rate = needs.examples / bounds[slowest]
    share = bounds["computation"] / bounds[slowest]
    article = "An" if needs.program.startswith("e") else "A"
    return (
        f"{article} {needs.program} takes at least: {each}. It is bound by {slowest}: at most "
        f"{rate:,.0f} examples/s on {topology.description}, at {share:.0%} of peak. These are "
        "bounds from published peaks, not measurements."
    )


def content(outcome: Outcome, topology: Topology) -> dict[str, Any]:
    """Returns all numbers, for JSON."""
    programs = [
        dataclasses.asdict(each) | {"sent": each.sent, "bounds": each.bounds(topology)}
        for each in outcome.programs
    ]
    return {
        "topology": topology.name,
        "slices": topology.slices,
        "devices": len(topology.devices),
        "fits": outcome.fits,
        "changes": outcome.changes,
        "programs": programs,
    }
