"""Compiles programs for absent devices: do they fit, and what bounds their speed?"""

from pnoise_jax.studies.ahead_of_time.compiling import (
    Needs,
    TooLargeError,
    build,
    compile_evaluation,
    compile_training,
)
from pnoise_jax.studies.ahead_of_time.exchanges import noise_exchanges
from pnoise_jax.studies.ahead_of_time.operations import count_flops
from pnoise_jax.studies.ahead_of_time.outcome import Outcome, compile_run
from pnoise_jax.studies.ahead_of_time.report import (
    collectives_table,
    content,
    describe_bound,
    table,
)
from pnoise_jax.studies.ahead_of_time.suggesting import candidates, suggest
from pnoise_jax.studies.ahead_of_time.topologies import Topology, open_topology

__all__ = [
    "Needs",
    "Outcome",
    "TooLargeError",
    "Topology",
    "build",
    "candidates",
    "collectives_table",
    "compile_evaluation",
    "compile_run",
    "compile_training",
    "content",
    "count_flops",
    "describe_bound",
    "noise_exchanges",
    "open_topology",
    "suggest",
    "table",
]
