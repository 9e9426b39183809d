"""The bridge: relates how much models leak at a site to how much their decision depends on it.

Reads a sweep that evaluates each training twice at the same site: with a noise that mixes the
batch, and with the representation erased (`noise.Erase`), as in `configs/bridge.py`.
"""

import csv
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import scipy

from pnoise_jax.studies.sweep.results import MEASURES, Row
from pnoise_jax.writing import csv_rows, csv_text

CONFIDENCE = 0.95
_RESAMPLES = 2000
_MODEL = ("model.depth", "model.dim", "model.pooling", "duration", "seed")  # columns read
_NOT_SWEPT = ("format", "run", "updates", "n", *MEASURES)  # the other columns of results.csv
_SITE = ("noise.layer", "noise.point", "noise.tokens")  # of both cells of a training
COLUMNS = ("depth", "width", "pooling", "epochs", "seed")
COLUMNS += ("clean", "knocked_out", "shuffled", "class_sorted")


@dataclasses.dataclass(frozen=True)
class Model:
    """One training and its accuracies, top-1 in percent.

    Attributes:
      depth, width, pooling, epochs, seed: what was trained.
      clean: without noise.
      knocked_out: with the representation at the site erased and nothing mixed.
      shuffled, class_sorted: with the noise at the site, in shuffled and in class order.
    """

    depth: int
    width: int
    pooling: str
    epochs: int
    seed: int
    clean: float
    knocked_out: float
    shuffled: float
    class_sorted: float

    @property
    def cell(self) -> tuple:
        """What was trained, without the seed."""
        return self.depth, self.width, self.pooling, self.epochs

    @property
    def drop(self) -> float:
        """How much the decision depends on the site: clean minus knocked out, in points."""
        return self.clean - self.knocked_out

    @property
    def over_clean(self) -> float:
        """The leak as the paper would report it: class-sorted minus clean, in points."""
        return self.class_sorted - self.clean

    @property
    def over_shuffled(self) -> float:
        """The effect of the order alone: class-sorted minus shuffled, in points."""
        return self.class_sorted - self.shuffled


def read_models(workdir: str | os.PathLike) -> list[Model]:
    """Returns the finished models of a sweep over `configs/bridge.py`.

    Raises:
      OSError: the work directory has no readable results.csv.
      ValueError: the file is from another sweep, or its cells differ in fields that a `Model` does
        not have.
    """
    path = Path(workdir) / "results.csv"
    fix = "give the work directory of pnoise sweep --config bridge:digits"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv_rows(file)
    except OSError as error:
        raise OSError(f"{path} cannot be read ({error.strerror or error}): {fix}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a table in CSV ({error}): {fix}") from error
    if any(None in (*row, *row.values()) for row in rows):
        raise ValueError(
            f"{path} has a row with more or fewer cells than there are columns: restore it from a "
            f"copy, or {fix}"
        )
    missing = [field for field in (*_MODEL, "noise.name") if rows and field not in rows[0]]
    if missing or not rows:
        raise ValueError(
            f"{path} has no {missing[0] if missing else 'row'}: {fix}, or of one that sweeps "
            f"{', '.join((*_MODEL, 'noise.name'))}"
        )
    noisy = [row for row in rows if row["noise.name"] != "erase"]
    erased = [row for row in rows if row["noise.name"] == "erase"]
    _require_told_apart(path, noisy, erased)
    noisy, erased = _by_model(path, noisy), _by_model(path, erased)
    _require_same_trainings(path, noisy, erased)
    models = [_model(row, erased[key]) for key, row in noisy.items() if key in erased]
    if not models:
        raise ValueError(
            f"{path} has no model that is evaluated both with noise and with noise.name=erase: "
            "let sweep() return both cells for each training"
        )
    return models


def _require_told_apart(path: Path, noisy: Sequence[Row], erased: Sequence[Row]) -> None:
    """Raises ValueError if a column varies that does not distinguish models."""
    rows = [*noisy, *erased]
    for column in rows[0]:
        if column in (*_MODEL, *_NOT_SWEPT):
            continue
        # The two cells of a training differ in the noise, but not in its site.
        may_differ = column.startswith("noise.") and column not in _SITE
        for group in (noisy, erased) if may_differ else (rows,):
            values = list(dict.fromkeys(row[column] for row in group))
            if len(values) > 1:
                raise ValueError(
                    f"{path}: {column} varies ({', '.join(map(repr, values[:4]))}"
                    f"{', …' if len(values) > 4 else ''}), but models are distinguished only by "
                    f"{', '.join(_MODEL)}: run a separate sweep for each {column}"
                )


def _by_model(path: Path, rows: Iterable[Row]) -> dict[tuple[str, ...], Row]:
    by_model: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = tuple(row[field] for field in _MODEL)
        if key in by_model:
            raise ValueError(
                f"{path} has two rows with noise.name={row['noise.name']!r} of one model "
                f"({_named(key)}): remove one of them"
            )
        by_model[key] = row
    return by_model


def _require_same_trainings(
    path: Path, noisy: Mapping[tuple[str, ...], Row], erased: Mapping[tuple[str, ...], Row]
) -> None:
    """Raises ValueError if the two cells of a model come from different trainings."""
    for key in noisy.keys() & erased.keys():
        runs = noisy[key].get("run"), erased[key].get("run")
        if runs[0] != runs[1]:
            raise ValueError(
                f"{path}: the two cells of {_named(key)} come from two trainings (run={runs[0]!r} "
                f"and {runs[1]!r}): train without noise, so that both evaluate the same training"
            )


def _named(key: Sequence[str]) -> str:
    return ", ".join(f"{field}={value}" for field, value in zip(_MODEL, key, strict=True))


def _model(noisy: Row, erased: Row) -> Model:
    amount, _, unit = noisy["duration"].partition(" ")
    if unit.rstrip("s") != "epoch" or not amount.isdigit():
        raise ValueError(
            f"duration={noisy['duration']!r}: the table has a column of epochs; give the duration "
            "as a whole number of them, such as '30 epochs'"
        )
    return Model(
        depth=int(noisy["model.depth"]),
        width=int(noisy["model.dim"]),
        pooling=noisy["model.pooling"],
        epochs=int(amount),
        seed=int(noisy["seed"]),
        clean=float(noisy["clean_top1"]),
        knocked_out=float(erased["shuffled_top1"]),
        shuffled=float(noisy["shuffled_top1"]),
        class_sorted=float(noisy["class_sorted_top1"]),
    )


def models_text(models: Iterable[Model]) -> str:
    """Returns a CSV table of `COLUMNS` with a row per training; accuracies have three decimals."""
    rows = [dataclasses.asdict(model) for model in models]
    return csv_text(COLUMNS, [{k: _rounded(v) for k, v in row.items()} for row in rows])


def _rounded(value):
    return round(value, 3) if isinstance(value, float) else value


@dataclasses.dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation between leak and drop.

    Attributes:
      value: the correlation over all models; NaN if the leak or the drop does not vary.
      interval: bootstrapped over cells, keeping the seeds of a cell together; NaN with fewer than 3
        cells.
      models, cells: the numbers of models and cells.
    """

    value: float
    interval: tuple[float, float]
    models: int
    cells: int

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.2f} ({low:.2f} to {high:.2f}; {self.models} models)"


def correlate(models: Sequence[Model], leak: str, *, seed: int = 0) -> Correlation:
    """Computes Spearman's rank correlation between a leak and the drop, with a bootstrap interval.

    Args:
      models: the models of one data set.
      leak: "over_clean" or "over_shuffled".
      seed: the seed of the bootstrap.
    """
    by_cell: dict[tuple, list[tuple[float, float]]] = {}
    for model in models:
        by_cell.setdefault(model.cell, []).append((model.drop, getattr(model, leak)))
    cells = [np.array(points) for points in by_cell.values()]
    value = _spearman(np.concatenate(cells))
    if len(cells) < 3:
        return Correlation(value, (np.nan, np.nan), len(models), len(cells))
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(cells), size=(_RESAMPLES, len(cells)))
    replicates = [_spearman(np.concatenate([cells[i] for i in row])) for row in drawn]
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(replicates, (tail, 100 - tail))
    return Correlation(value, (float(low), float(high)), len(models), len(cells))


def _spearman(points: np.ndarray) -> float:
    """Correlates points (n, 2); NaN if a column does not vary, as in a few small resamples."""
    if not np.ptp(points, axis=0).all():
        return np.nan
    correlation, _ = scipy.stats.spearmanr(points)
    return float(cast("float", correlation))


def describe(name: str, models: Sequence[Model], *, claimed: float = 9.0) -> str:
    """Describes the correlations, and the cells that leak at least as much as claimed.

    Args:
      name: the name of the data set.
      models: the models of this data set.
      claimed: the claimed gain over clean in points; compared with the mean over a cell's seeds.
    """
    groups = {"all": list(models)}
    for pooling in sorted({model.pooling for model in models}):
        groups[f"pooling={pooling}"] = [model for model in models if model.pooling == pooling]
    lines = [f"{name}: Spearman's correlation with the drop (95 %, bootstrap over cells)"]
    for group, members in groups.items():
        of_leak = [correlate(members, leak) for leak in ("over_clean", "over_shuffled")]
        lines.append(f"  {group}: leak over clean {of_leak[0]}, over shuffled {of_leak[1]}")
    cells = mean_cells(models)
    leaking = [cell for cell in cells if cell["over_clean"] >= claimed]
    lines.append(f"  {len(leaking)} of {len(cells)} cells leak {claimed:g} points over clean:")
    for cell in sorted(leaking, key=lambda cell: -cell["over_clean"]):
        lines.append("    " + ", ".join(f"{k}={_short(v)}" for k, v in cell.items()))
    return "\n".join(lines)


def mean_cells(models: Iterable[Model]) -> list[dict[str, Any]]:
    """Returns each cell's fields and its means over seeds: accuracies, drop and leaks.

    ``errors_removed`` is the leak over clean as a share of the clean errors, in percent.
    """
    by_cell: dict[tuple, list[Model]] = {}
    for model in models:
        by_cell.setdefault(model.cell, []).append(model)
    measures = ("clean", "knocked_out", "shuffled", "class_sorted")
    measures += ("drop", "over_clean", "over_shuffled")
    cells = []
    for cell, members in by_cell.items():
        means = {m: float(np.mean([getattr(model, m) for model in members])) for m in measures}
        errors = 100 - means["clean"]
        removed = {"errors_removed": 100 * means["over_clean"] / errors if errors else np.nan}
        cells.append(dict(zip(COLUMNS, cell, strict=False)) | means | removed)
    return cells


def _short(value: int | str | float) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
