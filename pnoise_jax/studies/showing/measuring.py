"""What noises do to pixels and to representations, in numbers."""

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
        """Of the values that are defined; None where none is."""
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        return cls(*map(float, np.percentile(values, (25, 50, 75))))


@dataclasses.dataclass(frozen=True, eq=False)
class NoisyImages:
    """Images with a noise of one strength.

    Attributes:
      shown: the noise.
      strength: of it.
      k: how many images it mixed; None for none.
      missing: why there is no such noise; then there are no images either.
      images: (n, height, width, channels), float32 in 0..255.
      change: root mean square of the difference, in grey levels of 255.
      clipped: share of the numbers that had to be clipped.
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
      strength: of it.
      k: how many examples it mixes; None for none.
      missing: why there is no such noise; then nothing is measured either.
      norm: of the noisy representation, relative to the clean one's.
      cosine: of the noisy and the clean representation; None where the noisy one is zero.
      spectrum: singular values of a batch, (examples, features), mean over the batches.
    """

    shown: ShownNoise
    strength: float
    k: int | None
    missing: str | None
    norm: Quartiles | None = None
    cosine: Quartiles | None = None
    spectrum: tuple[float, ...] = ()


def noisy_pixels(noisy: noise.Noise, images: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Images with noise, as at the point "image": on pixels from 0 to 1; not yet clipped.

    Args:
      noisy: the noise.
      images: (n, height, width, channels), uint8.
      strength: of it.
      seed: of its draws.

    Returns:
      Like images, but float32, in units of 0..255.
    """
    pixels = images.astype(np.float32) / _LEVELS
    return _LEVELS * apply(noisy, pixels, strength, seed)


def apply(noisy: noise.Noise, x: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """x (n, ...) with noise; the draws of all strengths are the same.

    Raises:
      ValueError: the noise fails, or gives numbers that are not finite.
    """
    call = jax.jit(lambda key, x, strength: noisy(key, x, strength=strength))
    try:
        changed = np.asarray(call(jax.random.key(seed), x, jnp.float32(strength)), np.float32)
    except Exception as error:  # a noise of the user's own may raise anything
        raise ValueError(
            f"{noisy} fails for an array of shape {x.shape}: {type(error).__name__}: {error}"
        ) from error
    if not np.isfinite(changed).all():
        raise ValueError(f"{noisy} of strength {strength:g} gives numbers that are not finite")
    return changed


def measure_images(
    shown: ShownNoise, images: np.ndarray, strengths: Sequence[float], seed: int
) -> list[NoisyImages]:
    """A noise on images (n, height, width, channels), uint8, at each strength.

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
        clipped = float(np.mean(np.abs(raw - noisy) > 1e-3 * _LEVELS))  # not by rounding alone
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
      noisy_at: gives the same with noise of a strength.
      strengths: to measure at.
      k: examples in a batch; it divides n.
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
    """Norms relative to the clean ones, and cosines, per example; NaN where one is undefined."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (clean, noisy))
    norms = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return norms[1] / norms[0], np.einsum("nf,nf->n", a, b) / (norms[0] * norms[1])


def mean_spectrum(x: np.ndarray, k: int) -> tuple[float, ...]:
    """Singular values of each batch of k rows, (k, features), in order; mean over the batches."""
    batches = x.reshape(-1, k, x[0].size).astype(np.float64)
    # By their squares: as many numbers as examples, however many features there are.
    squares = np.linalg.eigvalsh(batches @ batches.swapaxes(1, 2))[:, ::-1]
    return tuple(map(float, np.sqrt(squares.clip(0)).mean(axis=0)))
