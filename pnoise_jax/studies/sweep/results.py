"""results.csv: one row for each cell of a sweep, written after each group of them."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from pnoise_jax.runs import RunDirectory, write_config
from pnoise_jax.studies.sweep import shards
from pnoise_jax.studies.sweep.cells import Cell, text_at
from pnoise_jax.studies.sweep.shards import Shard
from pnoise_jax.training import (
    NOT_OF_RESULTS,
    data_version,
    flatten,
    own_modules,
    run_config,
    starting_weights,
)
from pnoise_jax.writing import csv_rows, csv_text, replace_file, require_places

FORMAT = 2  # of results.csv and summary.csv; raised when a column changes its meaning
PROTOCOLS = ("clean", "shuffled", "class_sorted")  # the first without noise
MEASURES = tuple(f"{protocol}_{name}" for protocol in PROTOCOLS for name in ("top1", "nll"))
_FIXED = ("run", "updates", "n", *MEASURES)  # no field of a config is called so
_BASE = "base_config.json"
_FILES = ("results.csv", "summary.csv", "figure.svg", "figure.png", _BASE, "weights.json")

Row = dict[str, str]


def has_results(workdir: str | os.PathLike) -> bool:
    """Whether a sweep would go on there, rather than start."""
    path = Path(workdir).expanduser()
    return (path / "results.csv").exists() or bool(shards.files(path))


def claim(
    path: Path,
    base: ml_collections.ConfigDict,
    described: dict[str, Any] | None = None,
    *,
    in_use: bool = False,
) -> None:
    """Makes a work directory that of sweeps over ``base``, or checks that it already is.

    Args:
      path: the directory, there and locked.
      base: the config of all cells.
      described: its data, as `data_version.describe` gives it, where the cells use them.
      in_use: whether shards are at work there, which may not have results yet.

    Raises:
      ValueError: it holds a run, or the results of another base config, whose differing fields the
        error names.
      OSError: it cannot be written.
    """
    named = f"--workdir={str(path)!r}"
    require_places(path, named=named, files=_FILES, directories=("runs", shards.DIRECTORY))
    if RunDirectory(path).has_run() or RunDirectory(path).checkpoints.exists():
        raise ValueError(
            f"--workdir={str(path)!r} holds a run of launch.train; give a sweep a directory of "
            "its own"
        )
    if has_results(path) or in_use:
        if not (path / _BASE).exists():
            raise ValueError(
                f"--workdir={str(path)!r} has a {_there(path)} but no {_BASE}, so it is not known "
                f"what its cells have in common; choose another directory, or move {_there(path)} "
                "away"
            )
        _check(path, base, described)
    else:
        write_config(path / _BASE, base)
        starting_weights.note_weights(path, base.weights)
        data_version.note(path, base, described)
        own_modules.note(path, base)


def _there(path: Path) -> str:
    """What holds the results in a work directory."""
    names = ["results.csv"] if (path / "results.csv").exists() or not shards.files(path) else []
    return " and ".join([*names, *(f"{shards.DIRECTORY}/" for _ in shards.files(path)[:1])])


def _check(path: Path, base: ml_collections.ConfigDict, described: dict[str, Any] | None) -> None:
    stored = run_config.read_config(path, name=_BASE)
    ours = dict(flatten(stored))
    theirs = dict(flatten(base))
    changed = [
        f"{field}: {ours.get(field)!r} there, {theirs.get(field)!r} now"
        for field in sorted(ours.keys() | theirs.keys())
        if ours.get(field) != theirs.get(field)
        and field != "weights"
        and not field.startswith(NOT_OF_RESULTS)
    ]
    if not starting_weights.same_weights(path, ours.get("weights"), base.weights):
        changed.append(f"weights: {ours.get('weights')!r} with other content there")
    if changed:
        raise ValueError(
            f"--workdir={str(path)!r} has results of another base config ({'; '.join(changed)}): "
            f"choose another directory, set these fields back, or move {_there(path)} away (the "
            "trainings in runs/ that still fit are used again)"
        )
    data_version.check(path, stored, base, described)


class Results:
    """The rows of results.csv and of the shards, also those of cells that the sweep has no longer.

    A row belongs to the cell whose swept fields have the row's values; a field without a column in
    an older file has the base config's value there.
    """

    def __init__(
        self,
        path: Path,
        base: ml_collections.ConfigDict,
        fields: Sequence[str],
        shard: Shard | None = None,
    ):
        """Reads the files that are there.

        Args:
          path: the work directory of the sweep.
          base: the config of all cells.
          fields: those that the sweep sets somewhere, in the order of their columns.
          shard: writes its rows to a file of its own, in place of all rows to results.csv.

        Raises:
          ValueError: the file is of another format, or a field is called like another column.
        """
        for field in fields:
            if field in ("format", *_FIXED):
                raise ValueError(
                    f"sweep() sets {field!r}, and results.csv has another column of that name: "
                    "leave the field out of sweep()"
                )
        self._path = path
        self.file = path / "results.csv" if shard is None else shard.file(path)
        # A merge writes results.csv and then deletes the shards' files: the other way round, rows
        # could be in neither.
        by_file = {file: _read(file) for file in (*shards.files(path), path / "results.csv")}
        read = [row for rows in by_file.values() for row in rows]
        older = [name for row in read for name in row if name not in ("format", *_FIXED)]
        # By field, the base config's value.
        self._base = {field: text_at(base, field) for field in dict.fromkeys([*fields, *older])}
        self._rows = {self._key_of(row): row for row in read}
        # Those that `write` writes; None for all.
        self._own = None if shard is None else set(map(self._key_of, by_file.get(self.file, ())))

    def get(self, cell: Cell) -> Row | None:
        """The row of a cell, None where it is not finished."""
        return self._rows.get(self._key(cell.values))

    def add(self, cell: Cell, measures: Mapping[str, Any]) -> None:
        """Takes what was found for a cell: "run", "updates", "n" and `MEASURES`, None for none."""
        row = {name: _text(measures[name]) for name in _FIXED}
        key = self._key(cell.values)
        self._rows[key] = {"format": str(FORMAT)} | cell.values | row
        if self._own is not None:
            self._own.add(key)

    def others(self, cells: Iterable[Cell]) -> int:
        """How many rows are of none of these cells."""
        return len(self._rows.keys() - {self._key(cell.values) for cell in cells})

    def write(self) -> None:
        """Writes the file, at once or not at all."""
        replace_file(self.file, self.text())

    def merge_shards(self) -> None:
        """Moves the rows of all shards to results.csv; no shard may be at work."""
        merged = shards.files(self._path)
        if merged:
            self.write()
        for file in merged:
            file.unlink(missing_ok=True)

    def text(self) -> str:
        """What the file holds."""
        rows = [
            self._base | row
            for key, row in self._rows.items()
            if self._own is None or key in self._own
        ]
        return csv_text(("format", *self._base, *_FIXED), rows)

    def _key_of(self, row: Row) -> frozenset:
        return self._key({field: row[field] for field in self._base if field in row})

    def _key(self, values: Mapping[str, str]) -> frozenset:
        """The values that differ from the base's: columns may come and go."""
        return frozenset((k, v) for k, v in values.items() if v != self._base[k])


def _read(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv_rows(file)
    except FileNotFoundError:  # or merged into results.csv by now
        return []
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is not a table in UTF-8 ({error}): restore it from a copy, or move it away "
            "(the trainings in runs/ are used again)"
        ) from None
    for row in rows:
        whole = None not in row and None not in row.values() and row.keys() >= set(_FIXED)
        if row.get("format") != str(FORMAT) or not whole:
            raise ValueError(
                f"{path} has rows of format {row.get('format')!r}, and this program writes format "
                f"{FORMAT}: choose another --workdir, or move the file away (the trainings in "
                "runs/ are used again)"
            )
    return rows


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table, at once or not at all."""
    replace_file(path, csv_text(columns, rows))


def _text(value: Any) -> str:
    return "" if value is None else str(value)
