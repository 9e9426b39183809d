"""Several ordered pairs of domains: a study for each, and one table in the papers' order."""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from pnoise_jax import runs
from pnoise_jax.registry import did_you_mean
from pnoise_jax.studies.adaptation import pairs_page
from pnoise_jax.studies.adaptation.methods import Method
from pnoise_jax.studies.adaptation.study import run_adaptation
from pnoise_jax.studies.sweep.cells import override
from pnoise_jax.terminal import create_console, printable
from pnoise_jax.writing import csv_text, replace_file, require_places

Pairs = Mapping[str, Mapping[str, Any]]  # by name, the fields that a pair changes


def run_pairs(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    pairs: Pairs,
    *,
    names: Sequence[str] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Studies some ordered pairs, each in its own directory, and writes a table of all.

    The table, as pairs.csv and pairs.html, is updated after every pair. The same call resumes where
    it was stopped.

    Args:
      config: of all pairs.
      workdir: of all pairs; created if necessary.
      pairs: by name, in the order of the columns, the fields that a pair changes.
      names: the pairs to study now; None studies all. Pairs studied before stay in the table.
      **options: of `run_adaptation`.

    Returns:
      The rows of the table: "method", "noise", "protocol", one entry for each pair, None if it is
      missing, and their mean, "average", None if any is missing.

    Raises:
      ValueError: a pair is unknown; otherwise as `run_adaptation`.
    """
    names = list(pairs) if names is None else list(names)
    for name in names:
        if name not in pairs:
            raise ValueError(
                f"pairs: {name!r} is unknown{did_you_mean(name, pairs)}; there are "
                f"{', '.join(pairs)}"
            )
    configs = {name: override(config, pairs[name]) for name in names}
    path = runs.make_writable(workdir)
    require_places(path, named=f"--workdir={str(path)!r}", files=("pairs.csv", "pairs.html"))
    console, rows = create_console(), []
    for name in names:
        console.rule(f"pair {printable(name)}")
        run_adaptation(configs[name], path / name, **options)
        rows = _write(path, config, list(pairs))
    pairs_page.print_table(console, rows, list(pairs))
    console.print(f"wrote {printable(str(path / 'pairs.html'))}", soft_wrap=True)
    return rows


def _write(path: Path, config: ml_collections.ConfigDict, pairs: list[str]) -> list[dict[str, Any]]:
    studied = {name: _read(path / name) for name in pairs}
    rows = table(studied)
    columns = ["method", "noise", "protocol", *pairs, "average"]
    replace_file(path / "pairs.csv", csv_text(columns, rows))
    replace_file(path / "pairs.html", pairs_page.render(rows, studied, config))
    return rows


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads((path / "adaptation.json").read_text("utf-8"))
    except FileNotFoundError:
        return None


def table(studied: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """A row for each method, with and without noise, and protocol; means over seeds, in percent.

    Args:
      studied: by pair, the content of its adaptation.json, or None if there is none yet.
    """
    lines = functools.reduce(
        lambda seen, study: seen | _lines(study), filter(None, studied.values()), {}
    )
    rows = []
    for method, protocol in lines:
        key = {"method": method.name, "noise": method.noise, "protocol": protocol}
        values = {
            pair: None if study is None else _lines(study).get((method, protocol))
            for pair, study in studied.items()
        }
        there = [value for value in values.values() if value is not None]
        average = float(np.mean(there)) if len(there) == len(values) else None
        rows.append(key | values | {"average": average})
    return rows


def _lines(study: Mapping[str, Any]) -> dict[tuple[Method, str], float]:
    return {
        (Method(**row["method"]), protocol): value["value"]
        for row in study["table"]
        for protocol, value in row["values"].items()
    }
