"""Writes and reads the files of a leak audit."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pnoise_jax.studies.reporting import audit_figures, evidence_figures, page, style
from pnoise_jax.writing import csv_text, replace_file, require_places

VERSION = 2  # of audit.json
FILES = ("audit.json", "audit.csv", "audit.html", "predictions.npz")
FIGURES = {
    "protocols": audit_figures.protocols,
    "orders": evidence_figures.orders,
    "interventions": evidence_figures.interventions,
    "purity": audit_figures.purity,
    "per_class": audit_figures.per_class,
}


def write_audit(directory: str | os.PathLike, audit: Mapping[str, Any]) -> list[Path]:
    """Writes audit.json, audit.csv, the figures as SVG and PNG, and audit.html.

    All files are rendered before any is written, and each is replaced atomically. Figures of an
    earlier audit that this one does not have are removed.

    Args:
      directory: the directory to write to; created if missing.
      audit: the content of audit.json.

    Returns:
      The files written.

    Raises:
      ValueError: if the audit has another version, or contains a number that is not finite.
    """
    if audit["version"] != VERSION:
        raise ValueError(
            f"version={audit['version']!r} of the audit: only version {VERSION} can be written"
        )
    drawn = {name: draw(audit) for name, draw in FIGURES.items() if _has(audit, name)}
    vectors = {name: style.svg(figure) for name, figure in drawn.items()}
    contents = {
        "audit.json": (json.dumps(audit, indent=2, allow_nan=False) + "\n").encode(),
        "audit.csv": rows_as_csv(audit["rows"]).encode(),
        **{f"{name}.svg": vector for name, vector in vectors.items()},
        **{f"{name}.png": style.png(figure) for name, figure in drawn.items()},
        "audit.html": page.render(audit, vectors).encode(),
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name in FIGURES.keys() - drawn.keys():
        for suffix in (".svg", ".png"):
            directory.joinpath(name + suffix).unlink(missing_ok=True)
    for name, content in contents.items():
        replace_file(directory / name, content)
    return [directory / name for name in contents]


def require_own(directory: Path, measurement: str, *, named: str) -> None:
    """Checks that writing an audit would replace only an earlier copy of the same measurement.

    Args:
      directory: where the audit would be written.
      measurement: the digest of the measurement.
      named: the name of the directory in messages.

    Raises:
      FileExistsError: the directory contains another audit, or other files with these names.
      OSError: there is a directory where a file should be.
    """
    names = [*FILES, *(name + suffix for name in FIGURES for suffix in (".svg", ".png"))]
    require_places(directory, named=named, files=names)
    there = [name for name in names if (directory / name).exists()]
    if there and _measurement(directory / "audit.json") != measurement:
        holds = "another audit" if "audit.json" in there else f"other files ({', '.join(there)})"
        raise FileExistsError(
            f"{named} holds {holds}, which would be overwritten: choose another directory, or move "
            "them away"
        )


def _measurement(file: Path) -> str | None:
    try:
        audit = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return audit.get("measurement") if isinstance(audit, dict) else None


def read_audit(path: str | os.PathLike) -> dict[str, Any]:
    """Reads audit.json.

    Raises:
      ValueError: if the file is not an audit, or has another version.
      OSError: if it cannot be read.
    """
    path = Path(path)
    fix = "run the audit again, or give the path of another audit.json"
    try:
        audit = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}), expected an audit: {fix}") from None
    missing = {"version", "rows", "comparisons", "orders", "verdict"}
    if isinstance(audit, dict):
        missing -= audit.keys()
    if isinstance(audit, dict) and audit.get("version", VERSION) != VERSION:
        version = audit["version"]
        raise ValueError(f"{path} has version {version!r}, but {VERSION} was expected: {fix}")
    if missing:
        absent = ", ".join(sorted(missing))
        raise ValueError(
            f"{path} is not an audit: it has no {absent}, but an audit of version {VERSION} was "
            f"expected: {fix}"
        )
    return audit


def rows_as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats rows as CSV.

    An interval becomes two columns, another list words separated by spaces, None an empty cell.
    """
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(key for row in flat for key in row))
    return csv_text(columns, flat)


def _has(audit: Mapping[str, Any], figure: str) -> bool:
    if figure == "purity":
        return any(point["purity"] is not None for point in audit["purity"])
    return figure == "protocols" or bool(audit[figure])


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for key, value in row.items():
        if key == "interval":
            flat["interval_low"], flat["interval_high"] = value
        elif isinstance(value, list | tuple):
            flat[key] = " ".join(map(str, value))
        else:
            flat[key] = value
    return flat
