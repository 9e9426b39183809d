"""Entropies and mutual information, and the paper's closed forms, in nats.

Everything here runs on the host, in NumPy's float64, because determinants in float32 lose the
digits that matter. JAX arrays are accepted; traced arrays raise an error. An input that is not a
distribution, or not a covariance matrix of full rank, also raises an error, and never yields NaN.

Where to find each equation of *Explore Positive Noise in Deep Learning*:

- 1: `entropy`, `gaussian_entropy`
- 2, 4, 5: `mutual_information`, `gaussian_mutual_information`
- 3: `conditional_entropy`, `gaussian_conditional_entropy`
- 6, 7: `entropy` of p(Y | X), or of p(Y | X + e), for one X
- 8, 9, 12: `latent_task_entropy`; the gain that follows from it is `latent_gain`
- 10, 11: `gaussian_noise_gain`, `gaussian_noise_f`
- 13: `QualityMatrix.mutual_information`
- 14: `QualityMatrix.violations` (for any matrix Q: ``Dense(Q).violations(k)``), `solve_quality`
- 15: `salt_and_pepper_gain`
- 19, 20: `Optimal`, and its ``mutual_information(k)``

docs/theory.md says where these formulas differ from the definitions they are derived from;
`conditional_gain` is what follows from the definitions.
"""

from pnoise_jax.noise.information.discrete import conditional_entropy, entropy, mutual_information
from pnoise_jax.noise.information.gaussian import (
    gaussian_conditional_entropy,
    gaussian_entropy,
    gaussian_mutual_information,
)
from pnoise_jax.noise.information.published import (
    conditional_gain,
    gaussian_noise_f,
    gaussian_noise_gain,
    latent_gain,
    latent_task_entropy,
    salt_and_pepper_gain,
    solve_quality,
)

__all__ = [
    "conditional_entropy",
    "conditional_gain",
    "entropy",
    "gaussian_conditional_entropy",
    "gaussian_entropy",
    "gaussian_mutual_information",
    "gaussian_noise_f",
    "gaussian_noise_gain",
    "latent_gain",
    "latent_task_entropy",
    "mutual_information",
    "salt_and_pepper_gain",
    "solve_quality",
]
