"""The task of a denoising autoencoder: reconstruct clean pixels from noisy images."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import data, evaluation, noise
from pnoise_jax.data import class_names
from pnoise_jax.denoising.corruption import Corruption
from pnoise_jax.denoising.decoder import with_decoder
from pnoise_jax.denoising.errors import psnr, reconstruction_errors
from pnoise_jax.denoising.held_out import require_unseen_by_weights
from pnoise_jax.evaluation import Measure
from pnoise_jax.training import Metrics, Setup, State, StepContext, Task


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Denoising(Task):
    """Learns to reconstruct the clean image from a noisy one; labels are not used.

    The config's model encodes the image, with the config's noise at the point "image", and in the
    latent if there are other injections. A small decoder replaces the head and returns pixels. The
    loss is the mean squared error of these pixels, on the scale from 0 to 1. Noise that mixes
    examples is treated like any other: the target is the image before it was mixed.

    A classifier can start from the weights of a run, without the decoder: set
    ``config.weights = RUN_DIR`` and ``weights_head = "fresh"``.

    Has the attributes of every `Task`, and these:

    Attributes:
      decoder_width: number of features of the decoder's convolutions.
      decoder_depth: number of residual blocks of the decoder.
      held_out_classes: classes that neither training nor evaluation sees, by name ("8") or label
        (8), for `anomaly scores <anomaly.score_anomalies>`. The length of an epoch still counts
        them.
    """

    decoder_width: int = 64
    decoder_depth: int = 1
    held_out_classes: tuple[str | int, ...] = ()

    classifies: ClassVar[bool] = False
    target_fields: ClassVar[tuple[str, ...] | None] = ()
    step_measures: ClassVar[tuple[Measure, ...]] = (Measure("psnr", "PSNR", 2, "dB"),)
    row_measures: ClassVar[tuple[Measure, ...]] = (
        Measure("mse", "MSE", 5, "pixels from 0 to 1, squared, mean"),
        Measure("psnr", "PSNR", 2, "dB"),
        Measure("input_mse", "MSE of the input", 5, "pixels from 0 to 1, squared, mean"),
    )

    @classmethod
    def prepare_model(cls, model: nn.Module, **options: Any) -> nn.Module:
        """Returns the model with a decoder instead of its head."""
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        width, depth = (
            options.get(name, defaults[name]) for name in ("decoder_width", "decoder_depth")
        )
        return with_decoder(model, width=width, depth=depth)

    @classmethod
    def from_setup(cls, setup: Setup, **options: Any) -> Self:
        """Creates the task and looks up the held-out classes.

        Raises:
          ValueError: a held-out class does not exist, or all classes are held out.
        """
        task = super().from_setup(setup, **options)
        _ = task.held_out
        return task

    @functools.cached_property
    def held_out(self) -> tuple[int, ...]:
        """The labels of the held-out classes."""
        dataset = self.require_setup().test_data
        labels = class_names.find_labels(
            self.held_out_classes,
            dataset.class_names,
            number=dataset.num_classes,
            field="held_out_classes",
        )
        if len(labels) == dataset.num_classes:
            raise ValueError(
                f"held_out_classes={tuple(self.held_out_classes)!r} are all classes of "
                f"{dataset.name}: leave some to learn from"
            )
        return labels

    @property
    def held_out_names(self) -> tuple[str, ...]:
        """The names of the held-out classes, or their labels as strings if they have no names."""
        names = self.require_setup().test_data.class_names
        return tuple(str(label) if names is None else names[label] for label in self.held_out)

    def without_held_out(self, dataset: data.Dataset) -> data.Dataset:
        """Returns a data set without the held-out classes."""
        if not self.held_out:
            return dataset
        return data.select(dataset, np.flatnonzero(~np.isin(dataset.labels, self.held_out)))

    def check(self) -> None:
        """Raises ValueError if no noise is to be removed or there are too few training examples.

        Also raises it if the run starts from weights that may have learned a held-out class.
        """
        super().check()
        setup = self.require_setup()
        config = setup.config
        entering = [each for each in setup.injections if each.point == "image" and each.train]
        if all(each.noise.is_off for each in entering):
            raise ValueError(_explain_no_noise(setup, entering))
        kept = len(self.without_held_out(setup.train_data))
        if config.batch_size > kept:
            raise ValueError(
                f"batch_size={config.batch_size} is larger than data.train_split="
                f"{config.data.train_split!r} without task.held_out_classes="
                f"{tuple(self.held_out_classes)!r}, which has {kept} examples; lower batch_size"
            )
        self._require_one_view()
        if self.held_out and config.weights is not None:
            require_unseen_by_weights(config.weights, self.held_out_names)

    def _require_one_view(self) -> None:
        views = self.require_setup().config.evaluation.views
        if views != 1:
            raise ValueError(
                f"evaluation.views={views}: shifted images cannot be averaged; set it to 1"
            )

    def describe_data(self) -> dict[str, Any]:
        """Describes the held-out classes, if any, by their labels."""
        return {"held_out": list(self.held_out)} if self.held_out else {}

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """Returns the mean squared error of pixels from 0 to 1, and the PSNR as a metric.

        With gradient accumulation, the PSNR is the mean over micro-batches.
        """
        images = jnp.asarray(batch["image"])
        decoded, state = self.apply(params, state, self.normalise(images), context)
        loss = reconstruction_errors(decoded, images).mean()
        return loss, (state, {"psnr": psnr(loss)})

    def open_batches(self, start: int = 0) -> data.BatchIterator:
        """Opens the batches of the classes that are not held out."""
        setup = self.require_setup()
        return self.open_stream(self.without_held_out(setup.train_data), setup.config.seed, start)

    def evaluate(
        self,
        variables: Mapping[str, Any],
        mesh: jax.sharding.Mesh,
        protocols: Sequence[evaluation.Protocol],
        *,
        report: Callable[[str], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Evaluates the test images of the classes that are not held out; one row per protocol.

        "mse" is the mean over images, "psnr" is its PSNR, and "input_mse" is the error of the noisy
        images themselves, that is, of a model that changes nothing.
        """
        self._require_one_view()
        dataset = self.without_held_out(self.require_setup().test_data)
        rows = []
        for protocol in protocols:
            errors = self.errors(variables, dataset, mesh, protocol)
            of_input = self._score(Corruption.of(self.model), {}, dataset, mesh, protocol)
            mse, input_mse = (float(each.mean(dtype=np.float64)) for each in (errors, of_input))
            measured = {"mse": mse, "psnr": float(psnr(mse)), "input_mse": input_mse}
            rows.append(dataclasses.asdict(protocol) | measured | {"n": len(errors)})
            if report is not None:
                report(f"{protocol.name}: {len(errors)} examples")
        return rows

    def errors(
        self,
        variables: Mapping[str, Any],
        dataset: data.Dataset,
        mesh: jax.sharding.Mesh,
        protocol: evaluation.Protocol,
    ) -> np.ndarray:
        """Returns the reconstruction error of each example of a data set, (n,) float32.

        Args:
          variables: the variables of the model, including its decoder.
          dataset: images that are preprocessed for the model.
          mesh: the devices.
          protocol: clean or noisy; random noise is drawn by (evaluation.seed, example).

        Raises:
          ValueError: the error of an example is not finite.
        """
        errors = self._score(self.model, variables, dataset, mesh, protocol)
        if not np.isfinite(errors).all():
            culprit = int(np.flatnonzero(~np.isfinite(errors))[0])
            raise ValueError(
                f"the reconstruction of example {culprit} of {dataset.name}'s split "
                f"{dataset.split!r} is not finite ({protocol.name}); check the weights and the "
                "noise's strength"
            )
        return errors

    def _score(
        self,
        model: nn.Module,
        variables: Mapping[str, Any],
        dataset: data.Dataset,
        mesh: jax.sharding.Mesh,
        protocol: evaluation.Protocol,
    ) -> np.ndarray:
        """Returns the error of a model's output for each clean image, (n,) float32."""
        scored = evaluation.score_examples(
            model,
            variables,
            dataset,
            protocol,
            _error_of_pixels if model is self.model else self._error_of_images,
            mesh=mesh,
            mean=self.mean,
            std=self.std,
            seed=self.require_setup().config.evaluation.seed,
        )
        errors = np.full(len(dataset), np.nan, np.float32)
        for index, scores in scored:
            errors[index[index >= 0]] = scores["error"][index >= 0]
        return errors

    @functools.cached_property
    def _error_of_images(self) -> evaluation.Score:
        return functools.partial(_error_of_images, noise.PixelScale(self.mean, self.std))


def _error_of_pixels(decoded: jax.Array, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return {"error": reconstruction_errors(decoded, batch["image"])}


def _error_of_images(
    scale: noise.PixelScale, images: jax.Array, batch: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Returns the error of normalised images."""
    return _error_of_pixels(scale.to_pixels(images), batch)


def _explain_no_noise(setup: Setup, entering: Sequence[noise.Injection]) -> str:
    if entering:
        off = entering[0]
        return (
            f"{off.section}: {off.noise} does not change images, so there is nothing to remove; "
            "give it a strength above 0"
        )
    listed = [f"{each.section} at {each.point!r}, train={each.train}" for each in setup.injections]
    return (
        f"noise: denoising has nothing to remove, since no noise enters the image in training "
        f"({'; '.join(listed) or 'there is none'}); set, for example, noise.name='gaussian', "
        "noise.std=0.3, noise.point='image', noise.train=True"
    )
