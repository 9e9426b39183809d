"""MLflow: pip install "pnoise_jax[mlflow]"; MLFLOW_TRACKING_URI and the like apply."""

import os
from collections.abc import Mapping
from typing import Any

import mlflow

from pnoise_jax.runs.layout import RunDirectory
from pnoise_jax.runs.writers.base import grouped

_LONGEST = 500  # characters of a parameter's value, the limit of older servers


class MlflowWriter:
    """Logs to a run of MLflow; a resumed run continues the same one."""

    def __init__(self, run: RunDirectory, config: Mapping[str, Any], step: int):
        """Starts a run of MLflow, or resumes the one whose id is in the work directory."""
        identity = run.path / "mlflow_id"
        # If the library is not installed, pyright resolves the import to this file.
        self._client = mlflow.MlflowClient()  # pyright: ignore[reportAttributeAccessIssue]
        if identity.exists():
            self._id = identity.read_text().strip()
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "pnoise_jax"
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._id = self._client.create_run(place, run_name=run.path.name).info.run_id
        identity.write_text(self._id)
        for field, value in config.items():
            if value is not None:
                self._client.log_param(self._id, field, str(value)[:_LONGEST])

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs metrics under their grouped names."""
        for name, value in metrics.items():
            self._client.log_metric(self._id, grouped(name), value, step=step)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Logs the report, as metrics without steps."""
        for name, value in metrics.items():
            self._client.log_metric(self._id, f"report/{name.replace(', ', '_')}", value)

    def close(self) -> None:
        """Marks the run of MLflow as ended."""
        self._client.set_terminated(self._id)
