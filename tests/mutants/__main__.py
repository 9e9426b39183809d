"""Draws a sample of mutants, runs the tests on each, and reports which were not noticed."""

import argparse
import collections
import dataclasses
import json
import pathlib
import random
import signal
import sys
import tempfile
import time

from tests.mutants import mutations, table, trial

# What the tests' outcome means for a mutant.
KINDS = {"failed": "killed", "passed": "survived"}
LISTED = pathlib.Path(__file__).with_name("survivors.md")  # no test can notice these


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 1 if the tests fail on the package as it is."""
    flags = _parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the tests end, too
    deadline = time.monotonic() + 60 * flags.minutes
    mutants = _draw(flags)
    records = []
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as directory,
        trial.Trials(pathlib.Path(directory), flags.jobs, deadline, flags.cache) as trials,
    ):
        unchanged = trials.unchanged(
            test for mutant in mutants for test in table.tests_of(mutant.package, mutant.file)
        )
        failing = {test: outcome for test, outcome in unchanged.items() if outcome.kind != "passed"}
        for test, outcome in failing.items():
            print(f"{test} {outcome.kind} on the package as it is: {outcome.noticed}")
        mutants = [
            mutant
            for mutant in mutants
            if failing.keys().isdisjoint(table.tests_of(mutant.package, mutant.file))
        ]
        _write(flags, records, unchanged)
        for mutant, outcome in trials.mutants(mutants, unchanged):
            records.append(_record(mutant, outcome))
            _print_mutant(records[-1], len(records), len(mutants))
            _write(flags, records, unchanged)
    _print_summary(records)
    return int(any(outcome.kind == "failed" for outcome in failing.values()))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=", ".join(table.PACKAGES))
    parser.add_argument("--sample", type=int, default=25, help="places of each package")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--minutes", type=float, default=600, help="to stop after")
    parser.add_argument("--out", type=pathlib.Path, help="directory of mutants.json")
    parser.add_argument("--cache", type=pathlib.Path, help="directory of JAX's compilation cache")
    parser.add_argument("--again", type=pathlib.Path, help="mutants.json: try its survivors again")
    flags = parser.parse_args(arguments)
    if unknown := set(flags.packages) - table.PACKAGES.keys():
        parser.error(f"unknown package {min(unknown)!r}: choose from {', '.join(table.PACKAGES)}")
    flags.packages = flags.packages or list(table.PACKAGES)
    return flags


def _draw(flags: argparse.Namespace) -> list[mutations.Mutant]:
    """The mutants to try, shuffled: a run that is cut short has some of each package."""
    mutants = [
        mutant
        for package in flags.packages
        for mutant in mutations.sample(package, flags.sample, flags.seed)
    ]
    if flags.again is not None:
        earlier = json.loads(flags.again.read_text())["mutants"]
        survivors = {record["diff"] for record in earlier if record["outcome"] == "survived"}
        mutants = [mutant for mutant in mutants if mutant.diff in survivors]
    random.Random(flags.seed).shuffle(mutants)
    return mutants


def _record(mutant: mutations.Mutant, outcome: trial.Outcome) -> dict:
    kind = KINDS.get(outcome.kind, outcome.kind)
    if kind == "survived" and "\n".join(mutant.diff.splitlines()[3:]) in LISTED.read_text():
        kind = "equivalent"
    return {
        "package": mutant.package,
        "file": str(mutant.file),
        "line": mutant.line,
        "operator": mutant.operator,
        "outcome": kind,
        "seconds": round(outcome.seconds, 1),
        "noticed": outcome.noticed if outcome.kind == "failed" else "",
        "diff": mutant.diff,
    }


def _print_mutant(record: dict, number: int, total: int) -> None:
    print(
        f"[{number}/{total}] {record['outcome']}: {record['file']}:{record['line']} "
        f"{record['operator']} ({record['seconds']} s)",
        flush=True,
    )
    if record["outcome"] == "survived":
        print(record["diff"], flush=True)


def _print_summary(records: list[dict]) -> None:
    kinds = ("killed", "timed out", "survived", "equivalent", trial.OUT_OF_TIME)
    counts = collections.defaultdict(collections.Counter)
    for record in records:
        counts[record["package"]][record["outcome"]] += 1
    width = max(map(len, [*counts, "package"]))
    print(f"\n{'package':{width}}  " + "  ".join(kinds))
    for package, count in sorted(counts.items()):
        print(f"{package:{width}}  " + "  ".join(f"{count[kind]:{len(kind)}}" for kind in kinds))


def _write(flags: argparse.Namespace, records: list[dict], unchanged: dict) -> None:
    """mutants.json: how the sample was drawn, the tests' times, and every mutant."""
    if flags.out is None:
        return
    flags.out.mkdir(parents=True, exist_ok=True)
    report = {
        "sample": flags.sample,
        "seed": flags.seed,
        "tests": {test: dataclasses.asdict(outcome) for test, outcome in unchanged.items()},
        "mutants": records,
    }
    (flags.out / "mutants.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    sys.exit(main())
