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
_EXAMPLES = 200  # at least one batch of them is measured in the latent


@dataclasses.dataclass(frozen=True)
class ShowSettings:
    """How noises are shown.

    Attributes:
      strengths: of every noise; kept in ascending order.
      images: how many are drawn; a noise that mixes a batch mixes these.
      seed: chooses the images, and what noises draw.
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
      site: where.
      shape: of one example's representation.
      examples: how many are measured.
      k: in each batch.
      norm: of the clean representation, median over examples.
      spectrum: singular values of a clean batch, mean over batches.
      noisy: for each noise and strength.
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
    """All that is drawn.

    Attributes:
      settings: how it was made.
      data: the data set and its split.
      weights: whose representations are shown, in words.
      noises: what is shown.
      not_shown: by name, why other registered noises are not.
      indices: of the images that are drawn, in the data set.
      images: the same, (n, height, width, channels), uint8.
      labels: their classes, by name where names are known.
      noisy_images: for each noise and strength.
      sites: one for each place where the config's noise enters.
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
      config: with the data, the model, the noise and its place.
      workdir: of a run, whose weights are taken; None takes the config's, or those before training.
      settings: of strengths, images and seed.

    Raises:
      ValueError: bad settings or a bad config, named; or something that cannot be shown.
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
    """Every noise at one site; batched: as `_in_batches` has them."""
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
    """The k of evaluations.

    Raises:
      ValueError: there are not as many examples.
    """
    k, n = experiment.config.evaluation.batch_size, len(experiment.test_data)
    if k > n:
        raise ValueError(
            f"evaluation.batch_size={k}: noise is shown in such batches, and data.test_split="
            f"{experiment.config.data.test_split!r} has {n} images; lower it"
        )
    return k


def _check(experiment: Experiment, settings: ShowSettings) -> None:
    """Raises ValueError where the images cannot be drawn."""
    data = experiment.test_data
    if settings.images > len(data):
        raise ValueError(
            f"images={settings.images}: data.test_split={experiment.config.data.test_split!r} has "
            f"{len(data)}; give that many or fewer"
        )
    channels = data.require_image_shape()[-1]
    if channels not in (1, 3):
        raise ValueError(
            f"data.name={experiment.config.data.name!r}: its images have {channels} channels, and "
            "only images of 1 or 3 can be drawn"
        )


def _in_batches(
    noises: tuple[ShownNoise, ...], settings: ShowSettings, k: int
) -> tuple[dict[ShownNoise, noise.Noise], dict[str, str]]:
    """Each noise as it mixes batches of k, and by name why others cannot be shown.

    Raises:
      ValueError: a noise of the config takes groups that do not divide the images or k.
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
    """The weights to show, and what they are, in words."""
    if workdir is not None:
        run = restore(workdir, experiment.config, mesh=parallel.data_mesh())
        averaged = ", moving average" if run.weights == "ema" else ""
        return run, f"weights of the run {os.fspath(workdir)}, step {run.step}{averaged}"
    pretrained = experiment.match_weights()
    imported = None if pretrained is None else dict(pretrained.read())
    state = jax.jit(experiment.initial_state)(jax.random.key(experiment.config.seed), imported)
    text = "initial weights, not trained" if pretrained is None else pretrained.describe()
    return Run.of(experiment, state), text
