"""metrics.jsonl: a line of JSON by step."""

import json
from collections.abc import Mapping
from typing import Any

from pnoise_jax import writing
from pnoise_jax.runs.layout import RunDirectory


class JsonlWriter:
    """Writes metrics.jsonl; the numbers at the end are in evaluation.json."""

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
          evaluates: whether the evaluation of this step is done again; drops what it had written.
        """
        file = run.metrics
        if file.exists():
            lines = file.read_text(errors="replace").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            if evaluates:
                kept = [k for k in kept if _step_of(k) < step or '"clean/' not in k]
            if kept != lines:
                writing.replace_file(file, "".join(f"{line}\n" for line in kept))
        self._file, self._lines = file, file.open("a")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a line."""
        if not self._file.exists() and self._file.parent.is_dir():  # it alone was deleted or moved
            self._lines.close()
            self._lines = self._file.open("a")
        self._lines.write(json.dumps({"step": step, **metrics}) + "\n")
        self._lines.flush()

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Nothing: evaluation.json has them."""

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the process died while writing it
        return float("inf")
