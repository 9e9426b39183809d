"""results.csv: one row for each cell of a sweep, written after each group of trainings."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from pnoise_jax.runs import BASE_CONFIG, RunDirectory, write_config
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

FORMAT = 2  # of results.csv and summary.csv; increased when a column changes its meaning
PROTOCOLS = ("clean", "shuffled", "class_sorted")  # the first is without noise
MEASURES = tuple(f"{protocol}_{name}" for protocol in PROTOCOLS for name in ("top1", "nll"))
_FIXED = ("run", "updates", "n", *MEASURES)  # no config field has one of these names
_FILES = ("results.csv", "summary.csv", "figure.svg", "figure.png", BASE_CONFIG, "weights.json")

Row = dict[str, str]


def has_results(workdir: str | os.PathLike) -> bool:
    """Returns whether a sweep would resume there instead of starting."""
    path = Path(workdir).expanduser()
    return (path / "results.csv").exists() or bool(shards.files(path))


def claim(
    path: Path,
    base: ml_collections.ConfigDict,
    described: dict[str, Any] | None = None,
    *,
    in_use: bool = False,
) -> None:
    """Claims a work directory for sweeps over ``base``, or checks that it belongs to them already.

    Args:
      path: the directory; it must exist and be locked.
      base: the config that all cells share.
      described: its data, as returned by `data_version.describe`; None if no cell uses them.
      in_use: whether shards are running there; they may not have written results yet.

    Raises:
      ValueError: the directory contains a run, another study, or results of another base config;
        the message names the fields that differ.
      OSError: the directory cannot be written.
    """
    named = f"--workdir={str(path)!r}"
    require_places(path, named=named, files=_FILES, directories=("runs", shards.DIRECTORY))
    if RunDirectory(path).has_run() or RunDirectory(path).checkpoints.exists():
        raise ValueError(
            f"--workdir={str(path)!r} holds a run of pnoise train; choose another directory for "
            "the sweep"
        )
    if (path / "measured").exists():
        raise ValueError(
            f"--workdir={str(path)!r} holds another study, with the measurements in measured/; "
            "choose another directory for the sweep"
        )
    if has_results(path) or in_use:
        if not (path / BASE_CONFIG).exists():
            raise ValueError(
                f"--workdir={str(path)!r} has a {_there(path)} but no {BASE_CONFIG}, so the base "
                f"config of its cells is unknown; choose another directory, or move {_there(path)} "
                "away"
            )
        _check(path, base, described)
    else:
        notes = (RunDirectory(path).data, RunDirectory(path).modules)
        files = (path / name for name in _FILES if name != BASE_CONFIG)
        run_config.require_own_files(path / BASE_CONFIG, (*files, *notes))
        write_config(path / BASE_CONFIG, base)
        starting_weights.note_weights(path, base.weights)
        data_version.note(path, base, described)
        own_modules.note(path, base)


def _there(path: Path) -> str:
    """Returns the names of the files and folders that contain results in a work directory."""
    names = ["results.csv"] if (path / "results.csv").exists() or not shards.files(path) else []
    return " and ".join([*names, *(f"{shards.DIRECTORY}/" for _ in shards.files(path)[:1])])


def _check(path: Path, base: ml_collections.ConfigDict, described: dict[str, Any] | None) -> None:
    stored = run_config.read_config(path, name=BASE_CONFIG)
    before = dict(flatten(stored))
    now = dict(flatten(base))
    changed = [
        f"{field}: {before.get(field)!r} there, {now.get(field)!r} now"
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field)
        and field != "weights"
        and not field.startswith(NOT_OF_RESULTS)
    ]
    if not starting_weights.same_weights(path, before.get("weights"), base.weights):
        changed.append(f"weights: {before.get('weights')!r} with other content there")
    if changed:
        raise ValueError(
            f"--workdir={str(path)!r} has results of another base config ({'; '.join(changed)}): "
            f"choose another directory, set these fields back, or move {_there(path)} away (the "
            "trainings in runs/ that still match are reused)"
        )
    data_version.check(path, stored, base, described)


class Results:
    """The rows of results.csv and of the shards, including cells no longer in the sweep.

    A row belongs to the cell whose swept fields have the row's values. A field that has no column
    in an older file counts as having the base config's value there.
    """

    def __init__(
        self,
        path: Path,
        base: ml_collections.ConfigDict,
        fields: Sequence[str],
        shard: Shard | None = None,
    ):
        """Reads the existing files.

        Args:
          path: the work directory of the sweep.
          base: the config that all cells share.
          fields: the fields that any cell sets, in column order.
          shard: if given, `write` writes only this shard's rows, to the shard's own file; otherwise
            it writes all rows to results.csv.

        Raises:
          ValueError: a file has another format, or a field has the same name as another column.
        """
        for field in fields:
            if field in ("format", *_FIXED):
                raise ValueError(
                    f"sweep() sets {field!r}, and results.csv has another column of that name: "
                    "remove the field from sweep()"
                )
        self._path = path
        self.file = path / "results.csv" if shard is None else shard.file(path)
        # Shards first: a merge writes results.csv and then deletes the shards' files, so reading
        # results.csv first could miss rows in both.
        by_file = {file: _read(file) for file in (*shards.files(path), path / "results.csv")}
        read = [row for rows in by_file.values() for row in rows]
        older = [name for row in read for name in row if name not in ("format", *_FIXED)]
        # The base config's value of each field.
        self._base = {field: text_at(base, field) for field in dict.fromkeys([*fields, *older])}
        self._rows = {self._key_of(row): row for row in read}
        # The rows that `write` writes; None for all.
        self._own = None if shard is None else set(map(self._key_of, by_file.get(self.file, ())))

    def get(self, cell: Cell) -> Row | None:
        """Returns the row of a cell, or None if it is not finished."""
        return self._rows.get(self._key(cell.values))

    def add(self, cell: Cell, measures: Mapping[str, Any]) -> None:
        """Adds a cell's results: "run", "updates", "n" and `MEASURES`; None for a missing one."""
        row = {name: _text(measures[name]) for name in _FIXED}
        key = self._key(cell.values)
        self._rows[key] = {"format": str(FORMAT)} | cell.values | row
        if self._own is not None:
            self._own.add(key)

    def others(self, cells: Iterable[Cell]) -> int:
        """Returns how many rows belong to none of these cells."""
        return len(self._rows.keys() - {self._key(cell.values) for cell in cells})

    def write(self) -> None:
        """Writes the file atomically."""
        replace_file(self.file, self.text())

    def merge_shards(self) -> None:
        """Moves the rows of all shards to results.csv; no shard may be running."""
        merged = shards.files(self._path)
        if merged:
            self.write()
        for file in merged:
            file.unlink(missing_ok=True)

    def text(self) -> str:
        """Returns the content of the file."""
        rows = [
            self._base | row
            for key, row in self._rows.items()
            if self._own is None or key in self._own
        ]
        return csv_text(("format", *self._base, *_FIXED), rows)

    def _key_of(self, row: Row) -> frozenset:
        return self._key({field: row[field] for field in self._base if field in row})

    def _key(self, values: Mapping[str, str]) -> frozenset:
        """Returns the values that differ from the base config's, so added columns change no key."""
        return frozenset((k, v) for k, v in values.items() if v != self._base[k])


def _read(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv_rows(file)
    except FileNotFoundError:  # never written, or just merged into results.csv
        return []
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is not a table in UTF-8 ({error}): restore it from a copy, or move it away "
            "(the trainings in runs/ are reused)"
        ) from None
    for row in rows:
        whole = None not in row and None not in row.values() and row.keys() >= set(_FIXED)
        if row.get("format") != str(FORMAT) or not whole:
            raise ValueError(
                f"{path} has rows of format {row.get('format')!r}, but this program writes format "
                f"{FORMAT}: choose another --workdir, or move the file away (the trainings in "
                "runs/ are reused)"
            )
    return rows


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table atomically."""
    replace_file(path, csv_text(columns, rows))


def _text(value: Any) -> str:
    return "" if value is None else str(value)
