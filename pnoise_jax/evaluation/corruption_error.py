"""ImageNet-C's measures: the mean error over corruptions, and mCE, relative to AlexNet's errors.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations (2019). The error of a corruption is the mean over its five severities. Divided by
AlexNet's error it is the corruption error CE, and mCE is the mean of the 15 CEs. AlexNet's errors
are from the script imagenet.py of google-research/augmix, which took them from the benchmark's
repository, hendrycks/robustness.
"""

from collections.abc import Mapping

import numpy as np

from pnoise_jax.data import imagenet_sets

# Percent, mean over severities.
ALEXNET_ERRORS = {
    "gaussian_noise": 88.6428,
    "shot_noise": 89.4468,
    "impulse_noise": 92.2640,
    "defocus_blur": 81.9880,
    "glass_blur": 82.6268,
    "motion_blur": 78.5948,
    "zoom_blur": 79.8360,
    "snow": 86.6816,
    "frost": 82.6572,
    "fog": 81.9324,
    "brightness": 56.4592,
    "contrast": 85.3204,
    "elastic_transform": 64.6056,
    "pixelate": 71.7840,
    "jpeg_compression": 60.6500,
}


def errors_by_corruption(top1: Mapping[tuple[str, int], float]) -> dict[str, float]:
    """Returns the mean error over severities, in percent, of each corruption that has all of them.

    Args:
      top1: accuracy by corruption and severity, in percent.
    """
    corruptions = dict.fromkeys(corruption for corruption, _ in top1)
    return {
        corruption: float(
            np.mean([100 - top1[corruption, severity] for severity in imagenet_sets.SEVERITIES])
        )
        for corruption in corruptions
        if all((corruption, severity) in top1 for severity in imagenet_sets.SEVERITIES)
    }


def mean_errors(errors: Mapping[str, float]) -> dict[str, float]:
    """Returns the mean error over the benchmark's 15 corruptions, and mCE, both in percent.

    Args:
      errors: by corruption, from `errors_by_corruption`; corruptions other than the 15 are ignored.

    Returns:
      "mean_error" and "mce"; an empty dict if one of the 15 is missing, because a mean over the
      rest would not be comparable.
    """
    if any(corruption not in errors for corruption in imagenet_sets.BENCHMARK):
        return {}
    relative = [100 * errors[name] / ALEXNET_ERRORS[name] for name in imagenet_sets.BENCHMARK]
    return {
        "mean_error": float(np.mean([errors[name] for name in imagenet_sets.BENCHMARK])),
        "mce": float(np.mean(relative)),
    }
