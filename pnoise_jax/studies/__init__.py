"""Studies that answer questions: the leak audit, sweeps, and their reports."""

from pnoise_jax.studies import bridge, bridge_figure
from pnoise_jax.studies.leak import (
    KINDS,
    Audit,
    AuditSettings,
    Verdict,
    assert_independent_of_batch,
    audit,
)
from pnoise_jax.studies.leak.audit_runs import audit_runs
from pnoise_jax.studies.leak.seed_runs import read_config as read_run_config
from pnoise_jax.studies.reporting.report import read_audit
from pnoise_jax.studies.sweep import product, run_sweep

__all__ = [
    "KINDS",
    "Audit",
    "AuditSettings",
    "Verdict",
    "assert_independent_of_batch",
    "audit",
    "audit_runs",
    "bridge",
    "bridge_figure",
    "product",
    "read_audit",
    "read_run_config",
    "run_sweep",
]
