"""Is noise a useful regulariser? Tunes it and others in the same way, and compares by seed."""

from pnoise_jax.studies.regularisers.plan import Arm, Seeds, Setting
from pnoise_jax.studies.regularisers.study import compare_regularisers

__all__ = ["Arm", "Seeds", "Setting", "compare_regularisers"]
