"""results.csv: one row for each cell of a sweep, written after each group of them."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from pnoise_jax.studies.sweep.cells import Cell, text_at
from pnoise_jax.training import data_version, own_modules
from pnoise_jax.training import workdir as directories
from pnoise_jax.training.config import NOT_OF_RESULTS, flatten
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
    return (Path(workdir).expanduser() / "results.csv").exists()


def claim(
    path: Path, base: ml_collections.ConfigDict, described: dict[str, Any] | None = None
) -> None:
    """Makes a work directory that of sweeps over ``base``, or checks that it already is.

    Args:
      path: the directory, there and locked.
      base: the config of all cells.
      described: its data, as `data_version.describe` gives it, where the cells use them.

    Raises:
      ValueError: it holds a run, or the results of another base config, whose differing fields the
        error names.
      OSError: it cannot be written.
    """
    named = f"--workdir={str(path)!r}"
    require_places(path, named=named, files=_FILES, directories=("runs",))
    if (path / "config.json").exists() or (path / "checkpoints").exists():
        raise ValueError(
            f"--workdir={str(path)!r} holds a run of launch.train; give a sweep a directory of "
            "its own"
        )
    if has_results(path):
        if not (path / _BASE).exists():
            raise ValueError(
                f"--workdir={str(path)!r} has a results.csv but no {_BASE}, so it is not known "
                "what its cells have in common; choose another directory, or move results.csv away"
            )
        _check(path, base, described)
    else:
        directories.write_config(path / _BASE, base)
        directories.note_weights(path, base.weights)
        data_version.note(path, base, described)
        own_modules.note(path, base)


def _check(path: Path, base: ml_collections.ConfigDict, described: dict[str, Any] | None) -> None:
    stored = directories.read_config(path, name=_BASE)
    ours = dict(flatten(stored))
    theirs = dict(flatten(base))
    changed = [
        f"{field}: {ours.get(field)!r} there, {theirs.get(field)!r} now"
        for field in sorted(ours.keys() | theirs.keys())
        if ours.get(field) != theirs.get(field)
        and field != "weights"
        and not field.startswith(NOT_OF_RESULTS)
    ]
    if not directories.same_weights(path, ours.get("weights"), base.weights):
        changed.append(f"weights: {ours.get('weights')!r} with other content there")
    if changed:
        raise ValueError(
            f"--workdir={str(path)!r} has results of another base config ({'; '.join(changed)}): "
            "choose another directory, set these fields back, or move results.csv away (the "
            "trainings in runs/ that still fit are used again)"
        )
    data_version.check(path, stored, base, described)


class Results:
    """The rows of results.csv, those of cells that the sweep no longer has included.

    A row belongs to the cell whose swept fields have the row's values; a field without a column in
    an older file has the base config's value there.
    """

    def __init__(self, path: Path, base: ml_collections.ConfigDict, fields: Sequence[str]):
        """Reads ``path``, if it is there.

        Args:
          path: of results.csv.
          base: the config of all cells.
          fields: those that the sweep sets somewhere, in the order of their columns.

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
        self._rows: dict[frozenset, Row] = {}
        read = _read(path) if path.exists() else []
        older = [name for row in read for name in row if name not in ("format", *_FIXED)]
        # By field, the base config's value.
        self._base = {field: text_at(base, field) for field in dict.fromkeys([*fields, *older])}
        for row in read:
            values = {field: row[field] for field in self._base if field in row}
            self._rows[self._key(values)] = row

    def get(self, cell: Cell) -> Row | None:
        """The row of a cell, None where it is not finished."""
        return self._rows.get(self._key(cell.values))

    def add(self, cell: Cell, found: Mapping[str, Any]) -> None:
        """Takes what was found for a cell: "run", "updates", "n" and `MEASURES`, None for none."""
        row = {name: _text(found[name]) for name in _FIXED}
        self._rows[self._key(cell.values)] = {"format": str(FORMAT)} | cell.values | row

    def others(self, cells: Iterable[Cell]) -> int:
        """How many rows are of none of these cells."""
        return len(self._rows.keys() - {self._key(cell.values) for cell in cells})

    def write(self) -> None:
        """Writes the file, at once or not at all."""
        replace_file(self._path, self.text())

    def text(self) -> str:
        """What the file holds."""
        rows = [self._base | row for row in self._rows.values()]
        return csv_text(("format", *self._base, *_FIXED), rows)

    def _key(self, values: Mapping[str, str]) -> frozenset:
        """The values that differ from the base's: columns may come and go."""
        return frozenset((k, v) for k, v in values.items() if v != self._base[k])


def _read(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv_rows(file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is no table in UTF-8 ({error}): restore it from a copy, or move it away (the "
            "trainings in runs/ are used again)"
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
