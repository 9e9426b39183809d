"""Measures what noises do to pixels and to representations."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import noise
from pnoise_jax.studies.showing.shown_noises import ShownNoise

_LEVELS = 255


@dataclasses.dataclass(frozen=True)
class Quartiles:
    """The quartiles of a measure over examples."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Quartiles | None":
        """Returns the quartiles of the finite values; None if there are none."""
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        return cls(*map(float, np.percentile(values, (25, 50, 75))))


@dataclasses.dataclass(frozen=True, eq=False)
class NoisyImages:
    """Images with a noise of one strength.

    Attributes:
      shown: the noise.
      strength: its strength.
      k: the number of images it mixed; None if it mixes none.
      missing: why the noise cannot have this strength, in which case there are no images; else
        None.
      images: (n, height, width, channels), float32 in 0..255.
      change: root mean square of the difference to the clean images, in grey levels of 255.
      clipped: share of the values that were clipped.
    """

    shown: ShownNoise
    strength: float
    k: int | None
    missing: str | None
    images: np.ndarray | None = None
    change: float | None = None
    clipped: float | None = None


@dataclasses.dataclass(frozen=True)
class NoisyRepresentation:
    """What a noise of one strength does to a representation.

    Attributes:
      shown: the noise.
      strength: its strength.
      k: the number of examples it mixes; None if it mixes none.
      missing: why the noise cannot have this strength, in which case nothing is measured; else
        None.
      norm: the norm of the noisy representation relative to that of the clean one.
      cosine: the cosine between the noisy and the clean representation; None if the noisy one is
        zero.
      spectrum: the singular values of a batch, (examples, features), mean over the batches.
    """

    shown: ShownNoise
    strength: float
    k: int | None
    missing: str | None
    norm: Quartiles | None = None
    cosine: Quartiles | None = None
    spectrum: tuple[float, ...] = ()


def noisy_pixels(noisy: noise.Noise, images: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Applies noise to images as at the point "image", on pixels from 0 to 1, without clipping.

    Args:
      noisy: the noise.
      images: (n, height, width, channels), uint8.
      strength: the strength of the noise.
      seed: the seed of its random draws.

    Returns:
      The noisy images, (n, height, width, channels), float32, in units of 0..255.
    """
    pixels = images.astype(np.float32) / _LEVELS
    return _LEVELS * apply(noisy, pixels, strength, seed)


def apply(noisy: noise.Noise, x: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Applies noise to x (n, ...); the random draws are the same for all strengths.

    Raises:
      ValueError: the noise raises an exception, or returns values that are not finite.
    """
    call = jax.jit(lambda key, x, strength: noisy(key, x, strength=strength))
    try:
        changed = np.asarray(call(jax.random.key(seed), x, jnp.float32(strength)), np.float32)
    except Exception as error:  # a user-defined noise may raise anything
        raise ValueError(
            f"{noisy} fails for an array of shape {x.shape}: {type(error).__name__}: {error}"
        ) from error
    if not np.isfinite(changed).all():
        raise ValueError(f"{noisy} of strength {strength:g} returns values that are not finite")
    return changed


def measure_images(
    shown: ShownNoise, images: np.ndarray, strengths: Sequence[float], seed: int
) -> list[NoisyImages]:
    """Applies a noise to images (n, height, width, channels), uint8, at each strength.

    Raises:
      ValueError: as `apply`.
    """
    measured = []
    for strength in strengths:
        missing = shown.missing_at(strength)
        head = (shown, strength, shown.mixed(len(images)), missing)
        if missing is not None:
            measured.append(NoisyImages(*head))
            continue
        raw = noisy_pixels(shown.noise, images, strength, seed)
        noisy = raw.clip(0, _LEVELS)
        change = float(np.sqrt(np.mean((noisy - images.astype(np.float32)) ** 2)))
        clipped = float(np.mean(np.abs(raw - noisy) > 1e-3 * _LEVELS))  # beyond rounding errors
        measured.append(NoisyImages(*head, noisy, change, clipped))
    return measured


def measure_representation(
    shown: ShownNoise,
    clean: np.ndarray,
    noisy_at: Callable[[float], np.ndarray],
    strengths: Sequence[float],
    k: int,
) -> list[NoisyRepresentation]:
    """Compares noisy representations with the clean one.

    Args:
      shown: the noise.
      clean: (n, ...).
      noisy_at: returns the representations with noise of a given strength, (n, ...).
      strengths: the strengths to measure.
      k: examples in a batch; must divide n.
    """
    measured = []
    for strength in strengths:
        missing = shown.missing_at(strength)
        head = (shown, strength, shown.mixed(k), missing)
        if missing is not None:
            measured.append(NoisyRepresentation(*head))
            continue
        noisy = noisy_at(strength)
        norm, cosine = map(Quartiles.of, compare(clean, noisy))
        measured.append(NoisyRepresentation(*head, norm, cosine, mean_spectrum(noisy, k)))
    return measured


def compare(clean: np.ndarray, noisy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns norms relative to the clean ones, and cosines, per example; NaN if undefined."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (clean, noisy))
    norms = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return norms[1] / norms[0], np.einsum("nf,nf->n", a, b) / (norms[0] * norms[1])


def mean_spectrum(x: np.ndarray, k: int) -> tuple[float, ...]:
    """Returns the singular values of each batch of k rows, largest first, averaged over batches."""
    batches = x.reshape(-1, k, x[0].size).astype(np.float64)
    # Their squares are the eigenvalues of a (k, k) matrix, however many features there are.
    squares = np.linalg.eigvalsh(batches @ batches.swapaxes(1, 2))[:, ::-1]
    return tuple(map(float, np.sqrt(squares.clip(0)).mean(axis=0)))
