"""The sites where noise enters a model, and the representations of images there."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np

from pnoise_jax import evaluation, noise
from pnoise_jax.training import Experiment, Run

_AT_ONCE = 64  # images


@dataclasses.dataclass(frozen=True)
class Site:
    """A place in a model.

    Attributes:
      layer: the block, counted from 1; 0 for the image.
      point: the point within the block.
      tokens: "all" or "patch".
      sections: the sections of the config whose noise enters here.
    """

    layer: int
    point: Literal["block_input", "attention_input", "image"]
    tokens: Literal["all", "patch"] = "all"
    sections: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    @property
    def name(self) -> str:
        """A name for files, such as "layer_4", "layer_4_attention_input_patch" or "image"."""
        parts = ["image"] if self.point == "image" else ["layer", str(self.layer)]
        parts += [self.point] if self.point == "attention_input" else []
        return "_".join([*parts, "patch"] if self.tokens == "patch" else parts)

    @property
    def title(self) -> str:
        """The site in words."""
        if self.point == "image":
            return "input of block 1, noise at the image"
        place = "attention input" if self.point == "attention_input" else "input"
        return f"{place} of block {self.layer}" + (
            ", patch tokens" if self.tokens == "patch" else ""
        )


def list_sites(injections: Sequence[noise.Injection], num_layers: int) -> tuple[Site, ...]:
    """Returns the sites of a config's injections; without any, the input of the last block."""
    if not injections:
        return (Site(num_layers, "block_input"),)
    sections: dict[Site, list[str]] = {}
    for injection in injections:
        image = injection.point == "image"
        for layer in (0,) if image else injection.layers(num_layers):
            site = Site(layer, injection.point, "all" if image else injection.tokens)
            sections.setdefault(site, []).append(injection.section)
    return tuple(dataclasses.replace(s, sections=tuple(n)) for s, n in sections.items())


def represent(run: Run, images: np.ndarray, site: Site) -> np.ndarray:
    """Returns the input of the noise at a site; for the image, the input of the first block.

    Args:
      run: the run whose model and weights to use.
      images: (n, height, width, channels), in 0..255.
      site: the site.

    Returns:
      The representations, (n, ...), float32.
    """
    read = jax.jit(functools.partial(_read, run.experiment, site))
    starts = range(0, len(images), _AT_ONCE)
    parts = [read(run.variables, images[start : start + _AT_ONCE]) for start in starts]
    return np.concatenate([np.asarray(part, np.float32) for part in parts])


def _read(experiment: Experiment, site: Site, variables: Any, images: jax.Array) -> jax.Array:
    model: nn.Module = experiment.task.model
    x = evaluation.normalise(images, experiment.mean, experiment.std)
    if site.point != "attention_input":
        layer = max(site.layer, 1)
        apply = functools.partial(model.clone(injection=None).apply, method="record_inputs")
        recorded: Any = apply(variables, x, (layer,), train=False)
        inputs = recorded[1][layer]
        return inputs[:, model.prefix_tokens :] if site.tokens == "patch" else inputs
    recorder = _Recorder()
    place = {"layer": site.layer, "point": site.point, "tokens": site.tokens}
    injection = noise.Injection(recorder, **place, inference=True)
    # Without remat, because a recorded value cannot escape its trace.
    model.clone(injection=injection, remat=False).apply(variables, x, train=False)
    (seen,) = recorder.seen
    return seen


@dataclasses.dataclass(frozen=True)
class _Recorder(noise.Noise):
    """A noise that records its input and returns it unchanged."""

    strength: float = 0.0
    seen: list = dataclasses.field(default_factory=list, compare=False)

    draws = False

    def noisy(self, key, x, *, mask, strength, index):
        del key, mask, strength, index
        self.seen.append(x)
        return x
