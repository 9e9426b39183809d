"""Shows what noises do to the images of a config, and to their representations."""

import dataclasses
import math
import os

import jax
import ml_collections
import numpy as np

from pnoise_jax import noise, parallel
from pnoise_jax.studies.showing.measuring import (
    NoisyImages,
    NoisyRepresentation,
    apply,
    mean_spectrum,
    measure_images,
    measure_representation,
    noisy_pixels,
)
from pnoise_jax.studies.showing.shown_noises import ShownNoise, list_noises
from pnoise_jax.studies.showing.sites import Site, list_sites, represent
from pnoise_jax.training import Experiment, Run, build, restore

_MOST_STRENGTHS, _MOST_IMAGES = 8, 40
_EXAMPLES = 200  # whose representations are measured, in whole batches, but at least one batch


@dataclasses.dataclass(frozen=True)
class ShowSettings:
    """How noises are shown.

    Attributes:
      strengths: the strengths of every noise; sorted in ascending order.
      images: the number of images drawn; a noise that mixes a batch mixes these.
      seed: the seed that selects the images and drives the noises.
    """

    strengths: tuple[float, ...] = (0.1, 0.3, 1.0)
    images: int = 8
    seed: int = 0

    def __post_init__(self):
        listed = f"strengths={','.join(f'{s:g}' for s in self.strengths)}"
        if any(not math.isfinite(s) or s < 0 for s in self.strengths):
            raise ValueError(f"{listed}: give finite numbers of at least 0")
        if not 1 <= len(self.strengths) <= _MOST_STRENGTHS:
            raise ValueError(
                f"{listed}: give 1 to {_MOST_STRENGTHS} numbers, such as 0.1,0.3,1: each is a "
                "column of the figure"
            )
        if len(set(self.strengths)) < len(self.strengths):
            raise ValueError(f"{listed}: give each strength once")
        if not 1 <= self.images <= _MOST_IMAGES:
            raise ValueError(f"images={self.images}: give a number from 1 to {_MOST_IMAGES}")
        object.__setattr__(self, "strengths", tuple(sorted(self.strengths)))


@dataclasses.dataclass(frozen=True, eq=False)
class ShownSite:
    """What noises do to the representation at one site.

    Attributes:
      site: the site.
      shape: the shape of one example's representation.
      examples: the number of examples measured.
      k: the number of examples in each batch.
      norm: the norm of the clean representation, median over examples.
      spectrum: the singular values of a clean batch, mean over batches.
      noisy: one measurement for each noise and strength.
    """

    site: Site
    shape: tuple[int, ...]
    examples: int
    k: int
    norm: float
    spectrum: tuple[float, ...]
    noisy: tuple[NoisyRepresentation, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """Everything that is drawn.

    Attributes:
      settings: the settings used.
      data: the data set and its split.
      weights: a description of the weights whose representations are shown.
      noises: the noises shown.
      not_shown: the reason why each other registered noise is not shown, by its name.
      indices: the indices in the data set of the images drawn.
      images: these images, (n, height, width, channels), uint8.
      labels: their classes, by name if names are known.
      noisy_images: one entry for each noise and strength.
      sites: one entry for each site where the config injects noise.
    """

    settings: ShowSettings
    data: str
    weights: str
    noises: tuple[ShownNoise, ...]
    not_shown: dict[str, str]
    indices: tuple[int, ...]
    images: np.ndarray
    labels: tuple[str, ...]
    noisy_images: tuple[NoisyImages, ...]
    sites: tuple[ShownSite, ...]


def show(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike | None = None,
    settings: ShowSettings | None = None,
) -> Shown:
    """Applies noises to images and to representations; changes nothing on disk.

    Args:
      config: the config with the data, the model, the noise and its site.
      workdir: the work directory of a run whose weights to use; None uses the config's weights, or
        the initial weights if it has none.
      settings: the strengths, the number of images and the seed; None uses the defaults.

    Raises:
      ValueError: the settings or the config are invalid, or something cannot be shown; the message
        names it.
      OSError: the data or the run cannot be read.
    """
    settings = settings or ShowSettings()
    experiment = build(config)
    noises, not_shown = list_noises(experiment.injections)
    k = _batch_size(experiment)
    _check(experiment, settings)
    batched, unfit = _in_batches(noises, settings, k)
    noises = tuple(batched)
    run, weights = _restore(experiment, workdir)
    chosen = np.random.default_rng(settings.seed).permutation(len(experiment.test_data))
    count = max(k, min(_EXAMPLES, len(chosen)) // k * k)
    needed = max(count, settings.images)
    images = np.stack([experiment.test_data[int(i)]["image"] for i in chosen[:needed]])
    drawn = images[: settings.images]
    noisy = [
        each
        for shown in noises
        for each in measure_images(shown, drawn, settings.strengths, settings.seed)
    ]
    sites = list_sites(experiment.injections, experiment.model.num_layers)
    return Shown(
        settings,
        f"{config.data.name} ({config.data.test_split})",
        weights,
        noises,
        not_shown | unfit,
        tuple(map(int, chosen[: settings.images])),
        drawn,
        _label(experiment, chosen[: settings.images]),
        tuple(noisy),
        tuple(_measure(run, site, images[:count], batched, k, settings) for site in sites),
    )


def _measure(
    run: Run,
    site: Site,
    images: np.ndarray,
    batched: dict[ShownNoise, noise.Noise],
    k: int,
    settings: ShowSettings,
) -> ShownSite:
    """Measures every noise at one site; ``batched`` comes from `_in_batches`."""
    clean = represent(run, images, site)
    if not np.isfinite(clean).all():
        raise ValueError(f"the representations at the {site.title} are not finite")

    def make(noisy: noise.Noise, strength: float) -> np.ndarray:
        if site.point != "image":
            return apply(noisy, clean, strength, settings.seed)
        pixels = noisy_pixels(noisy, images, strength, settings.seed)
        return represent(run, pixels.clip(0, 255), site)

    measured = []
    for shown, noisy in batched.items():
        noisy_at = lambda strength, noisy=noisy: make(noisy, strength)  # noqa: E731
        measured += measure_representation(shown, clean, noisy_at, settings.strengths, k)
    norms = np.linalg.norm(clean.reshape(len(clean), -1), axis=1)
    head = (site, clean.shape[1:], len(clean), k, float(np.median(norms)))
    return ShownSite(*head, mean_spectrum(clean, k), tuple(measured))


def _batch_size(experiment: Experiment) -> int:
    """Returns the batch size of evaluations.

    Raises:
      ValueError: the test split has fewer examples.
    """
    k, n = experiment.config.evaluation.batch_size, len(experiment.test_data)
    if k > n:
        raise ValueError(
            f"evaluation.batch_size={k}: noise is shown in batches of this size, but "
            f"data.test_split={experiment.config.data.test_split!r} has only {n} images; lower it"
        )
    return k


def _check(experiment: Experiment, settings: ShowSettings) -> None:
    """Raises ValueError if the images cannot be drawn."""
    data = experiment.test_data
    if settings.images > len(data):
        raise ValueError(
            f"images={settings.images}: data.test_split={experiment.config.data.test_split!r} has "
            f"{len(data)}; give that many or fewer"
        )
    channels = data.require_image_shape()[-1]
    if channels not in (1, 3):
        raise ValueError(
            f"data.name={experiment.config.data.name!r}: its images have {channels} channels, but "
            "only images with 1 or 3 channels can be drawn"
        )


def _in_batches(
    noises: tuple[ShownNoise, ...], settings: ShowSettings, k: int
) -> tuple[dict[ShownNoise, noise.Noise], dict[str, str]]:
    """Returns each noise adapted to batches of k, and by name why others cannot be shown.

    Raises:
      ValueError: the group size of a noise of the config does not divide the number of images or k.
    """
    batched: dict[ShownNoise, noise.Noise] = {}
    unfit: dict[str, str] = {}
    for shown in noises:
        try:
            _require_groups(shown, settings.images)
            batched[shown] = shown.in_batches_of(k)
        except ValueError as error:
            if shown.sections:
                raise
            unfit[shown.name] = str(error)
    return batched, unfit


def _require_groups(shown: ShownNoise, images: int) -> None:
    size = shown.noise.group_size
    if shown.noise.mixes_batch and size and images % size:
        section = shown.sections[0] if shown.sections else shown.name
        raise ValueError(
            f"images={images}: {section}.group_size={size} does not divide it; give a multiple of "
            f"{size}"
        )


def _label(experiment: Experiment, chosen: np.ndarray) -> tuple[str, ...]:
    names, labels = experiment.test_data.class_names, experiment.test_data.labels[chosen]
    return tuple(str(label) if names is None else names[label] for label in labels)


def _restore(experiment: Experiment, workdir: str | os.PathLike | None) -> tuple[Run, str]:
    """Returns a run with the weights to show, and a description of them."""
    if workdir is not None:
        run = restore(workdir, experiment.config, mesh=parallel.data_mesh())
        averaged = ", moving average" if run.weights == "ema" else ""
        return run, f"weights of the run {os.fspath(workdir)}, step {run.step}{averaged}"
    pretrained = experiment.match_weights()
    imported = None if pretrained is None else dict(pretrained.read())
    state = jax.jit(experiment.initial_state)(jax.random.key(experiment.config.seed), imported)
    text = "initial weights, not trained" if pretrained is None else pretrained.describe()
    return Run.of(experiment, state), text
