"""Where metrics go: metrics.jsonl and TensorBoard event files in the work directory."""

import json
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from pnoise_jax import writing
from pnoise_jax.runs.layout import RunDirectory


class MetricWriter:
    """Writes scalars by step. A run that goes on from ``step`` drops what was written after it."""

    def __init__(self, workdir: Path, *, step: int, evaluates: bool = False):
        """Opens the files.

        Args:
          workdir: where they are.
          step: the last one that is done.
          evaluates: whether the evaluation of this step is done again; drops what it had written.
        """
        file = RunDirectory(workdir).metrics
        if file.exists():
            lines = file.read_text(errors="replace").splitlines()
            kept = [line for line in lines if _step_of(line) <= step]
            if evaluates:
                kept = [k for k in kept if _step_of(k) < step or '"clean/' not in k]
            if kept != lines:
                writing.replace_file(file, "".join(f"{line}\n" for line in kept))
        self._file, self._jsonl = file, file.open("a")
        self._events = SummaryWriter(str(workdir), purge_step=step + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line in metrics.jsonl, one scalar each in the event file."""
        if not self._file.exists() and self._file.parent.is_dir():  # it alone was deleted or moved
            self._jsonl.close()
            self._jsonl = self._file.open("a")
        self._jsonl.write(json.dumps({"step": step, **metrics}) + "\n")
        self._jsonl.flush()
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes the files."""
        self._jsonl.close()
        self._events.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # the process died while writing it
        return float("inf")
