"""Several ordered pairs of domains: a study for each, and one table in the order of the papers."""

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
from pnoise_jax.runs import BASE_CONFIG
from pnoise_jax.studies.adaptation import pairs_page
from pnoise_jax.studies.adaptation.methods import Method, Overrides, require_names
from pnoise_jax.studies.adaptation.reference import official_metric
from pnoise_jax.studies.adaptation.study import (
    SEEDS,
    overrides_as_text,
    require_overrides,
    run_adaptation,
)
from pnoise_jax.studies.sweep.cells import override
from pnoise_jax.studies.training_runs import require_no_run
from pnoise_jax.terminal import create_console, printable
from pnoise_jax.training import HARMLESS, NOT_OF_RESULTS, differing, flatten, run_config
from pnoise_jax.writing import csv_text, replace_file, require_places

Pairs = Mapping[str, Mapping[str, Any]]  # by name, the fields that the pair changes


def run_pairs(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    pairs: Pairs,
    *,
    names: Sequence[str] | None = None,
    seeds: Sequence[int] = SEEDS,
    overrides: Overrides | None = None,
    metric: str | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Studies ordered pairs, each in a directory of its own, and writes one table of all pairs.

    The table, in pairs.csv and pairs.html, is updated after every pair. If the call was stopped,
    the same call resumes.

    Args:
      config: the config of all pairs.
      workdir: the work directory of all pairs; created if necessary.
      pairs: by name, the fields that the pair changes, in the order of the columns.
      names: the pairs to study now; None studies all. Pairs studied before stay in the table.
      seeds, overrides: as for `run_adaptation`.
      metric: as for `run_adaptation`; None uses the official metric of the pairs' data sets.
      **options: other arguments of `run_adaptation`.

    Returns:
      The rows of the table: "method", "noise", "protocol", an entry for each pair (None if it is
      missing), and "average", their mean (None if any is missing).

    Raises:
      ValueError: a pair is unknown, or another pair in the table was studied with other settings;
        also as for `run_adaptation`.
    """
    require_names(pairs, "pairs()")
    names = list(pairs) if names is None else list(names)
    if not names:
        raise ValueError("pairs: none is named: name one, or leave --pairs out for all of pairs()")
    for name in names:
        if name not in pairs:
            raise ValueError(
                f"pairs: {name!r} is unknown{did_you_mean(name, pairs)}; there are "
                f"{', '.join(pairs)}"
            )
    require_overrides(overrides or {})
    configs = {name: override(config, fields) for name, fields in pairs.items()}
    metric = metric or _official_metric(configs)
    path = runs.make_writable(workdir)
    require_places(path, named=f"--workdir={str(path)!r}", files=("pairs.csv", "pairs.html"))
    require_no_run(path)
    settings = _settings(metric, seeds, overrides or {})
    studied = {name: _read(path / name, configs[name], settings, name in names) for name in pairs}
    console, rows = create_console(), []
    for name in names:
        console.rule(f"pair {printable(name)}")
        studied[name] = run_adaptation(
            configs[name], path / name, seeds=seeds, overrides=overrides, metric=metric, **options
        )
        rows = table(studied)
        columns = ["method", "noise", "protocol", *pairs, "average"]
        replace_file(path / "pairs.csv", csv_text(columns, rows))
        replace_file(path / "pairs.html", pairs_page.render(rows, studied, config, metric))
    pairs_page.print_table(console, rows, list(pairs), metric)
    console.print(f"wrote {printable(str(path / 'pairs.html'))}", soft_wrap=True)
    return rows


def _official_metric(configs: Mapping[str, ml_collections.ConfigDict]) -> str:
    """Returns the official metric of all pairs; raises ValueError if they have several."""
    metrics = {name: official_metric(config.data.name) for name, config in configs.items()}
    if len(set(metrics.values())) > 1:
        listed = ", ".join(f"{name}: {metric}" for name, metric in metrics.items())
        raise ValueError(
            f"the official metrics of the pairs' data sets differ ({listed}), and one table shows "
            "all pairs: choose one with --metric"
        )
    return next(iter(metrics.values()), "accuracy")


def _settings(metric: str, seeds: Sequence[int], overrides: Overrides) -> dict[str, Any]:
    """Returns the settings, besides the config, that all pairs of a table must share."""
    return {"metric": metric, "seeds": sorted(seeds), "overrides": overrides_as_text(overrides)}


def _read(
    path: Path, config: ml_collections.ConfigDict, settings: Mapping[str, Any], again: bool
) -> dict[str, Any] | None:
    """Reads a pair's adaptation.json; returns None if it is missing or will be replaced.

    Args:
      path: the directory of the pair.
      config: the current config of the pair.
      settings: the current settings, from `_settings`.
      again: whether the pair is studied again, so that its settings may change.

    Raises:
      ValueError: it was studied with another config or other settings, which the message lists; or
        the file is damaged.
    """
    file = path / "adaptation.json"
    try:
        study = json.loads(file.read_text("utf-8"))
        _ = (
            study["metric"],
            study["seeds"],
            study["config"],
            _lines(study),
        )  # errors name what is missing
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{file} is damaged ({error!r}): restore it from a copy, or delete it and study this "
            "pair again, which repeats no finished training"
        ) from error
    changed = differing(run_config.read_config(path, name=BASE_CONFIG), config)
    changed.pop("seed", None)
    if changed:
        raise _other_settings(path, changed, "choose another directory, or set these fields back")
    changed = _changed_settings(study, settings) | _changed_measurement(study, config)
    if changed and not again:
        fix = "set these back, or study this pair again by naming it in --pairs, too"
        raise _other_settings(path, changed, fix)
    return None if changed else study


def _changed_settings(
    study: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Returns changed settings, by name (stored, current); overrides only of its methods."""
    pairs = {name: (study[name], settings[name]) for name in ("metric", "seeds")}
    now = settings["overrides"]
    then = study.get("overrides", now)  # older versions did not record them
    for method in dict.fromkeys(row["method"]["name"] for row in study["table"]):
        pairs[f"methods()[{method!r}]"] = (then.get(method, {}), now.get(method, {}))
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def _changed_measurement(
    study: Mapping[str, Any], config: ml_collections.ConfigDict
) -> dict[str, tuple[Any, Any]]:
    """Returns changed fields, by name (stored, current), that only the measurement depends on."""
    then, now = dict(flatten(study["config"])), dict(flatten(config))
    fields = set(HARMLESS) - set(NOT_OF_RESULTS)
    pairs = {name: (then.get(name, now[name]), now[name]) for name in sorted(fields)}
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def _other_settings(path: Path, changed: Mapping[str, tuple[Any, Any]], fix: str) -> ValueError:
    listed = "; ".join(
        f"{name}: {old!r} there, {new!r} now" for name, (old, new) in changed.items()
    )
    return ValueError(
        f"--workdir={str(path.parent)!r}: the pair {path.name!r} was studied with other settings "
        f"({listed}), and one table shows all pairs: {fix}"
    )


def table(studied: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """Returns a row per method, noise and protocol, with means over seeds in percent.

    Args:
      studied: by pair, the content of its adaptation.json, or None if it is missing.
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
        present = [value for value in values.values() if value is not None]
        average = float(np.mean(present)) if len(present) == len(values) else None
        rows.append(key | values | {"average": average})
    return rows


def _lines(study: Mapping[str, Any]) -> dict[tuple[Method, str], float]:
    return {
        (Method(**row["method"]), protocol): value["value"]
        for row in study["table"]
        for protocol, value in row["values"].items()
    }
