"""Weights & Biases: pip install "pnoise_jax[wandb]"; its variables, as WANDB_PROJECT, apply."""

import os
import uuid
from collections.abc import Mapping
from typing import Any

import wandb

from pnoise_jax.runs.layout import RunDirectory, is_in_bucket
from pnoise_jax.runs.writers.base import grouped


class WandbWriter:
    """Logs to a run of Weights & Biases; a resumed run continues the same one."""

    def __init__(self, run: RunDirectory, config: Mapping[str, Any], step: int):
        """Starts a run of W&B, or resumes the one whose id is in the work directory."""
        identity = run.path / "wandb_id"
        if not identity.exists():
            identity.write_text(uuid.uuid4().hex[:8])
        # If the library is not installed, pyright resolves the import to this file.
        self._run = wandb.init(  # pyright: ignore[reportAttributeAccessIssue]
            project=os.environ.get("WANDB_PROJECT", "pnoise_jax"),
            id=identity.read_text().strip(),
            name=run.path.name,
            dir=None if is_in_bucket(run.path) else str(run.path),
            config=dict(config),
            resume="allow",
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics under their grouped names; W&B rejects steps that were logged before."""
        self._run.log({grouped(name): value for name, value in metrics.items()}, step=step)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Logs the report as the summary of the run."""
        self._run.summary.update({f"report/{name}": value for name, value in metrics.items()})

    def close(self) -> None:
        """Ends the run of W&B."""
        self._run.finish()
