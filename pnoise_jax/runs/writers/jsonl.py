"""metrics.jsonl: a line of JSON for each report or evaluation."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from pnoise_jax import writing
from pnoise_jax.runs.layout import RunDirectory, is_in_bucket
from pnoise_jax.terminal import say

_DECODER = json.JSONDecoder()


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
        """Opens the file; see `Writer`. Says which lines are dropped because they are not rows.

        Args:
          evaluates: whether the evaluation of this step is repeated; drops its earlier line.
        """
        file = run.metrics
        if file.exists():
            lines = file.read_text(errors="replace").splitlines()
            rows = [row for line in lines for row in _rows_of(line, file)]
            kept = [row for row in rows if _step_of(row) <= step]
            if evaluates:
                kept = [k for k in kept if _step_of(k) < step or '"clean/' not in k]
            if kept != lines:
                writing.replace_file(file, "".join(f"{line}\n" for line in kept))
        self._file = file
        self._lines = _Rewritten(file) if is_in_bucket(file) else _open_after_line(file)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends a line."""
        self._reopen_if_replaced()
        self._lines.write(json.dumps({"step": step, **metrics}) + "\n")
        self._lines.flush()

    def _reopen_if_replaced(self) -> None:
        """Reopens the file if it was deleted, moved or replaced, but its directory was not."""
        if isinstance(self._lines, _Rewritten):
            return
        try:
            is_same = os.path.samestat(self._file.stat(), os.fstat(self._lines.fileno()))
        except FileNotFoundError:
            is_same = False
        if not is_same and self._file.parent.is_dir():
            self._lines.close()
            self._lines = _open_after_line(self._file)

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
        if self._content and not self._content.endswith("\n"):
            self._content += "\n"

    def write(self, line: str) -> None:
        self._content += line

    def flush(self) -> None:
        writing.replace_file(self._file, self._content)

    def close(self) -> None:
        pass


def _open_after_line(file: Path) -> TextIO:
    """Opens a file to append to it, after a newline if its last line has none."""
    lines = file.open("a")
    with file.open("rb") as written:
        size = written.seek(0, os.SEEK_END)
        written.seek(max(0, size - 1))
        if size and written.read() != b"\n":
            lines.write("\n")
    return lines


def _rows_of(line: str, file: Path) -> Iterator[str]:
    """The rows on a line: one, or several if the newline after a row was missing."""
    start, text = 0, line.strip()
    while start < len(text):
        try:
            _, end = _DECODER.raw_decode(text, start)
            if _step_of(text[start:end]) == math.inf:
                raise ValueError
        except ValueError:  # for example, the process died while writing it
            say(f"{file}: dropped what is not a row of metrics: {text[start:]!r}")
            return
        yield text[start:end]
        start = end + len(text[end:]) - len(text[end:].lstrip())


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
