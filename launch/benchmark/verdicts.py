"""How often an audit is wrong: pnoise benchmark verdicts [--flags]

Measured in simulated audits of functions for which the truth is known
(launch/benchmark/verdict_cases.py), with different numbers of examples and classes, batch sizes,
difficulty, class balance and seeds:

  false all-clear   labels leak, but the first kind of the verdict is independent, no_effect or
                    honest_gain
  false accusation  labels do not leak, but the verdict says leak; or it says order_effect, but no
                    order matters
  seen              labels leak and the verdict says so, by the number of examples

Printed: the share of each kind of verdict for each function, and these rates.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import multiprocessing
from typing import Any

import numpy as np
from absl import flags

from pnoise_jax import evaluation, studies

from . import report
from .verdict_cases import CASES, Case, Setting, draw_setting

_AUDITS = flags.DEFINE_integer(
    "audits", 1000, "Number of simulated audits of each function.", lower_bound=1
)
_PROCESSES = flags.DEFINE_integer(
    "processes", 1, "Number of audits that run at the same time.", lower_bound=1
)
_OUT = flags.DEFINE_string("out", None, "JSON file for all counts.")

ALL_CLEAR = ("independent", "no_effect", "honest_gain")
SIZES = (60, 120, 300, 1000)  # numbers of examples for which "seen" is measured
CHUNK = 50  # audits that a process receives at a time


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of one audit.

    Attributes:
      case: the number of the function in `CASES`.
      kinds: the kinds of the verdict.
    """

    case: int
    kinds: tuple[str, ...]


def main() -> None:
    """Simulates audits, and prints and writes the rates."""
    console, where = report.start(_OUT.value)
    any_size = simulate(_AUDITS.value, seed=0, processes=_PROCESSES.value)
    rows = [rates(case, any_size[number]) for number, case in enumerate(CASES)]
    console.print(_kinds_table(rows))
    console.print(_errors_table(rows))
    leaking = [number for number, case in enumerate(CASES) if case.leaks]
    by_size = {
        n: simulate(
            max(1, _AUDITS.value // 10),
            seed=1,
            processes=_PROCESSES.value,
            n=n,
            cases=leaking,
        )
        for n in SIZES
    }
    seen = {
        CASES[number].name: {
            n: rates(CASES[number], by_size[n][number])["said_leak"] for n in SIZES
        }
        for number in leaking
    }
    console.print(_seen_table(seen))
    content = {"benchmark": "verdicts", **where, "audits": _AUDITS.value}
    report.write(_OUT.value, console, content | {"functions": rows, "seen": seen})


def simulate(
    audits: int,
    *,
    seed: int,
    processes: int = 1,
    n: int | None = None,
    cases: list[int] | None = None,
) -> dict[int, list[Outcome]]:
    """The outcomes of each function, by its number in `CASES`.

    Args:
      audits: the number of audits of each function.
      seed: the seed of the settings.
      processes: the number of audits that run at the same time.
      n: the number of examples; None draws it too.
      cases: the numbers of the functions in `CASES`; None uses all.
    """
    chosen = range(len(CASES)) if cases is None else cases
    generator = np.random.default_rng(seed)
    jobs = [(number, draw_setting(generator, n)) for number in chosen for _ in range(audits)]
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    by_case: dict[int, list[Outcome]] = {number: [] for number in chosen}
    if processes == 1:
        outcomes = itertools.chain.from_iterable(map(_run, chunks))
    else:
        context = multiprocessing.get_context("spawn")  # JAX does not survive a fork
        with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
            outcomes = list(itertools.chain.from_iterable(pool.map(_run, chunks)))
    for outcome in outcomes:
        by_case[outcome.case].append(outcome)
    return by_case


def _run(jobs: list[tuple[int, Setting]]) -> list[Outcome]:
    return [Outcome(number, audit(CASES[number], setting)) for number, setting in jobs]


def audit(case: Case, setting: Setting) -> tuple[str, ...]:
    """The kinds of the verdict in one simulated audit."""
    x, labels, apply, clean = case.draw(setting)
    settings = studies.AuditSettings(
        batch_sizes=(setting.batch_size,), purity_steps=0, seed=setting.seed, mixed_batches=True
    )
    return studies.audit(apply, (x, labels), clean=clean, settings=settings).verdict.kinds


def rates(case: Case, outcomes: list[Outcome]) -> dict[str, Any]:
    """The share of each verdict in percent, and the rates of errors with 95 % intervals."""
    headed = collections.Counter(outcome.kinds[0] for outcome in outcomes)
    all_clear = sum(o.kinds[0] in ALL_CLEAR for o in outcomes) if case.leaks else 0
    leak = sum("leak" in o.kinds for o in outcomes)
    order = sum("order_effect" in o.kinds for o in outcomes)
    accused = 0 if case.leaks else leak
    if not case.order and not case.leaks:
        accused = sum(bool({"leak", "order_effect"} & set(o.kinds)) for o in outcomes)
    count = len(outcomes)
    return {
        "function": case.name,
        "leaks": case.leaks,
        "order": case.order,
        "depends": case.depends,
        "audits": count,
        "headed": {kind: 100 * headed[kind] / count for kind in studies.KINDS if headed[kind]},
        "said_leak": 100 * leak / count,
        "said_order_effect": 100 * order / count,
        "false_independent": sum("independent" in o.kinds for o in outcomes) * case.depends,
        "false_all_clear": _rate(all_clear, count),
        "false_accusation": _rate(accused, count),
    }


def _rate(events: int, count: int) -> dict[str, float]:
    estimate = evaluation.proportion(events, count, confidence=0.95)
    low, high = estimate.interval
    return {"events": events, "percent": estimate.value, "low": low, "high": high}


def _kinds_table(rows: list[dict[str, Any]]):
    kinds = [kind for kind in studies.KINDS if any(kind in row["headed"] for row in rows)]
    lines = [
        [row["function"], *(f"{row['headed'].get(kind, 0):.0f}" for kind in kinds)] for row in rows
    ]
    title = "first kind of the verdict, percent of audits"
    return report.table(title, ["function", *kinds], lines)


def _errors_table(rows: list[dict[str, Any]]):
    lines = []
    for row in rows:
        cells = [row["function"], "yes" if row["leaks"] else "no", str(row["audits"])]
        cells.append(_said(row["false_all_clear"]) if row["leaks"] else "")
        cells.append("" if row["leaks"] else _said(row["false_accusation"]))
        lines.append(cells)
    heads = ["function", "labels leak", "audits", "false all-clear, %", "false accusation, %"]
    return report.table("errors, percent (95 % interval)", heads, lines)


def _seen_table(seen: dict[str, dict[int, float]]):
    sizes = list(next(iter(seen.values())))
    lines = [[name, *(f"{by_size[n]:.0f}" for n in sizes)] for name, by_size in seen.items()]
    title = "leaks that the verdict calls a leak, percent of audits, by the number of examples"
    return report.table(title, ["function", *map(str, sizes)], lines)


def _said(rate: dict[str, float]) -> str:
    return f"{rate['percent']:.1f} ({rate['low']:.1f} to {rate['high']:.1f})"
