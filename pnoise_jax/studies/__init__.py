"""Studies: what answers a question. The leak audit, sweeps, and their reports."""

from pnoise_jax.studies.leak import Audit, AuditSettings, assert_independent_of_batch, audit
from pnoise_jax.studies.leak import audit_runs as audit_runs
from pnoise_jax.studies.leak import read_config as read_run_config

__all__ = [
    "Audit",
    "AuditSettings",
    "assert_independent_of_batch",
    "audit",
    "audit_runs",
    "read_run_config",
]
