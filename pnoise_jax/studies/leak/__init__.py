"""The leak audit: protocols on trained models, exact checks, interventions and a verdict."""

from pnoise_jax.studies.leak.audit import Audit, audit
from pnoise_jax.studies.leak.audit_runs import audit_runs
from pnoise_jax.studies.leak.audited.audited_function import AuditedFunction
from pnoise_jax.studies.leak.audited.audited_model import AuditedModel
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.leak.checks.independence import assert_independent_of_batch
from pnoise_jax.studies.leak.checks.orders import SHUFFLED, Orders
from pnoise_jax.studies.leak.measure import measure
from pnoise_jax.studies.leak.measurements import Measurements
from pnoise_jax.studies.leak.seed_runs import read_config
from pnoise_jax.studies.leak.settings import AuditSettings
from pnoise_jax.studies.leak.verdict import KINDS, Verdict

__all__ = [
    "KINDS",
    "SHUFFLED",
    "Audit",
    "AuditSettings",
    "AuditedFunction",
    "AuditedModel",
    "AuditedNoise",
    "Measurements",
    "Orders",
    "Verdict",
    "assert_independent_of_batch",
    "audit",
    "audit_runs",
    "measure",
    "read_config",
]
