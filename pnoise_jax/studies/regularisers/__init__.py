"""Is the noise a useful regulariser? The noise and others, tuned alike and compared by seed."""

from pnoise_jax.studies.regularisers.plan import Arm, Seeds, Setting
from pnoise_jax.studies.regularisers.study import compare_regularisers

__all__ = ["Arm", "Seeds", "Setting", "compare_regularisers"]
