"""The leak audit: protocols on trained models, statistics, the mechanism, a verdict."""

from pnoise_jax.studies.leak.audit import Audit, audit
from pnoise_jax.studies.leak.independence import assert_independent_of_batch
from pnoise_jax.studies.leak.measure import Measurements, measure
from pnoise_jax.studies.leak.runs import audit_runs
from pnoise_jax.studies.leak.seeds import read_config
from pnoise_jax.studies.leak.settings import AuditSettings
from pnoise_jax.studies.leak.subjects import AuditedNoise, FunctionSubject, ModelSubject

__all__ = [
    "Audit",
    "AuditSettings",
    "AuditedNoise",
    "FunctionSubject",
    "Measurements",
    "ModelSubject",
    "assert_independent_of_batch",
    "audit",
    "audit_runs",
    "measure",
    "read_config",
]
