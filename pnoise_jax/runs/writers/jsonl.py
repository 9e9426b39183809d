"""metrics.jsonl: a line of JSON for each report or evaluation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pnoise_jax import writing
from pnoise_jax.runs.layout import RunDirectory, is_in_bucket


class JsonlWriter:
    """Writes metrics.jsonl; the numbers of the final report are in evaluation.json instead."""

    def __init__(
        self,
        run: RunDirectory,
        config: Mapping[str, Any],
        step: int,
        *,
        evaluates: bool = False,
    ):
        """Opens the file; see `Writer`.

        Args:
          evaluates: whether the evaluation of this step is repeated; drops its earlier line.
        """
        file = run.metrics
        if file.exists():
            lines = file.read_text(errors="replace").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            if evaluates:
                kept = [k for k in kept if _step_of(k) < step or '"clean/' not in k]
            if kept != lines:
                writing.replace_file(file, "".join(f"{line}\n" for line in kept))
        self._file = file
        self._lines = _Rewritten(file) if is_in_bucket(file) else file.open("a")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends a line."""
        self._reopen_if_deleted()
        self._lines.write(json.dumps({"step": step, **metrics}) + "\n")
        self._lines.flush()

    def _reopen_if_deleted(self) -> None:
        """Reopens the file if it was deleted or moved, but its directory was not."""
        if isinstance(self._lines, _Rewritten) or self._file.exists():
            return
        if self._file.parent.is_dir():
            self._lines.close()
            self._lines = self._file.open("a")

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Does nothing: evaluation.json has the numbers."""

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


class _Rewritten:
    """A file in a bucket; buckets cannot append, so the file is rewritten for every new line."""

    def __init__(self, file: Path):
        self._file = file
        self._content = file.read_text(errors="replace") if file.exists() else ""

    def write(self, line: str) -> None:
        self._content += line

    def flush(self) -> None:
        writing.replace_file(self._file, self._content)

    def close(self) -> None:
        pass


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the process died while writing it
        return float("inf")
