"""Event files for TensorBoard."""

import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from pnoise_jax import writing
from pnoise_jax.runs.layout import RunDirectory, is_in_bucket
from pnoise_jax.runs.writers.base import grouped


class TensorBoardWriter:
    """Writes grouped scalars and, at the end, the report with the config as hyperparameters."""

    def __init__(self, run: RunDirectory, config: Mapping[str, Any], step: int):
        """Opens an event file, which hides what earlier files contain after ``step``."""
        # tensorboardX can write to a bucket, but if that fails, it retries for minutes at the end.
        self._bucket = run.path if is_in_bucket(run.path) else None
        self._local = tempfile.TemporaryDirectory() if self._bucket else None
        directory = run.path if self._local is None else self._local.name
        # tensorboardX names a file by host and second, and overwrites one of the same name: a run
        # that opens its writers twice within a second would lose the first file.
        self._events = SummaryWriter(
            str(directory), purge_step=step + 1, filename_suffix=f".{uuid.uuid4().hex[:12]}"
        )
        self._config, self._step = config, step

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes a scalar for each metric."""
        self._step = step
        for name, value in metrics.items():
            self._events.add_scalar(grouped(name), value, step)
        self._upload()

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Writes the rows of the report as scalars of the last step, and the hyperparameters."""
        fields = {k: v for k, v in self._config.items() if v is not None}
        plain = {k: v if isinstance(v, int | float | str) else str(v) for k, v in fields.items()}
        final = {f"report/{name.replace(', ', '_')}": value for name, value in metrics.items()}
        for name, value in final.items():
            self._events.add_scalar(name, value, self._step)
        experiment, summary, end = _hyperparameters(plain, final)
        file = self._events.file_writer
        assert file is not None, "finish comes before close"
        for part in (experiment, summary, end):
            file.add_summary(part)

    def close(self) -> None:
        """Flushes and closes the file."""
        self._events.close()
        self._upload()
        if self._local is not None:
            self._local.cleanup()

    def _upload(self) -> None:
        """Replaces the file in the bucket with what has been written so far."""
        if self._bucket is None or self._local is None:
            return
        self._events.flush()
        for file in Path(self._local.name).iterdir():
            writing.replace_file(self._bucket / file.name, file.read_bytes())


def _hyperparameters(config: Mapping[str, Any], metrics: Mapping[str, float]) -> tuple:
    from tensorboardX.summary import hparams  # `add_hparams` would open a separate directory

    return hparams(dict(config), dict(metrics))
