"""The base class of all models: common options, how models are called, where noise enters."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from pnoise_jax import noise, parallel
from pnoise_jax.models import checks


class Classifier(nn.Module, kw_only=True):
    """An image classifier with places where noise can enter: an embedding, blocks and a head.

    A family of models, ours or your own, is a subclass that defines `num_layers`, `run_embed`,
    `run_block` and `run_head`. Each block is a submodule called `layer_name(layer)`. It begins with
    ``x = taps(x, point="block_input", layer=layer)``, so that noise can enter there::

        class Mlp(models.Classifier, kw_only=True):
            depth: int = 2

            @property
            def num_layers(self):
                return self.depth

            def run_embed(self, images, *, train):
                return nn.Dense(16, name="embed")(images.reshape(len(images), -1))

            def run_block(self, x, taps, *, layer, train):
                return Layer(layer, name=self.layer_name(layer))(x, taps)

            def run_head(self, x, *, train):
                return nn.Dense(self.num_classes, name="head")(x)

    Attributes:
      num_classes: number of logits.
      drop_path: rate of stochastic depth in the last block; it grows linearly from 0 in the first,
        as with timm's `drop_path_rate`. Draws from the "dropout" stream.
      remat: recompute each block in the backward pass instead of keeping its activations. On CPUs
        this saves memory with jax 0.11 or later; in 0.10.2 XLA keeps the activations anyway.
      dtype: dtype of the blocks' computation. Parameters, statistics, the final norm and the head,
        and therefore the logits, are float32.
      injection: which noise enters where: one injection, or a tuple of several; several at the same
        place act in their order. None for the plain model.
      classifier_head: makes a module that replaces the last dense layer, given `num_classes`,
        `train` and its `name`; it maps features (batch, dim) to logits. Set by tasks, not by
        configs.
      image_head: makes a module that replaces the head, given its `name`; it maps the output of
        `run_map` and the images' (height, width, channels) to what the model returns. Set by
        tasks, not by configs.

    Raises:
      ValueError: at construction, if options contradict each other.
    """

    num_classes: int = 1000
    drop_path: float = 0.0
    remat: bool = False
    dtype: Any = jnp.float32
    injection: noise.Injection | tuple[noise.Injection, ...] | None = None
    classifier_head: Callable[..., nn.Module] | None = None
    image_head: Callable[..., nn.Module] | None = None

    points = ("image", "block_input")  # where an injection can enter
    prefix_tokens = 0  # how many learned tokens come before the patch tokens

    def __post_init__(self) -> None:
        injections = noise.as_injections(self.injection)
        several = injections if len(injections) > 1 else None
        object.__setattr__(self, "injection", several or next(iter(injections), None))
        super().__post_init__()
        checks.require_positive(num_classes=self.num_classes)
        checks.require_rate(drop_path=self.drop_path)

    @property
    def injections(self) -> tuple[noise.Injection, ...]:
        """All injections, as a tuple."""
        return noise.as_injections(self.injection)

    @property
    def head_init(self) -> nn.initializers.Initializer:
        """Initial values of the last dense layer's kernel."""
        return nn.linear.default_kernel_init

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Height and width of the images, in pixels; None if the model accepts any."""
        return None

    @property
    def matmul_split(self) -> parallel.MatmulSplit | None:
        """How devices can share the matrix products of a block; None if they cannot."""
        return None

    @property
    def num_layers(self) -> int:
        """Number of layers that an injection can address: the blocks, over all stages."""
        raise NotImplementedError

    @nn.nowrap
    def layer_name(self, layer: int) -> str:
        """Name of the submodule that is this layer's block; layers count from 1."""
        return f"block_{layer}"

    # Not named `embed` and `head`, because submodules may have these names, and `nnx.bridge.ToNNX`
    # has one namespace for methods and submodules.

    @nn.nowrap
    def run_embed(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Computes the input of the first block, from images that have passed their tap.

        Args:
          images: (batch, height, width, channels), float, of the right size.
          train: turns on dropout and the like.

        Returns:
          (batch, ...).
        """
        raise NotImplementedError

    @nn.nowrap
    def run_block(self, x: jax.Array, taps: noise.Taps, *, layer: int, train: bool) -> jax.Array:
        """Computes the input of the next block, or of the head.

        Evaluation resumes from a stored x, so the output must depend only on x, on the variables
        and on the noise that enters in this layer.

        Args:
          x: (batch, ...).
          taps: call it at each point of the layer where noise can enter.
          layer: number of the block, from 1.
          train: turns on dropout and the like.

        Returns:
          (batch, ...).
        """
        raise NotImplementedError

    @nn.nowrap
    def run_last_block(self, x: jax.Array, taps: noise.Taps, *, train: bool) -> jax.Array:
        """Computes the part of the last block's output that the head reads; by default, all of it.

        A model can override this to skip what its head does not read.
        """
        return self.run_block(x, taps, layer=self.num_layers, train=train)

    @nn.nowrap
    def run_features(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The features of each image, (batch, dim) float32, from the last block's output."""
        raise NotImplementedError(
            f"{type(self).__name__} has no run_features, which maps the last block's output to "
            "the features (batch, dim) that the last dense layer takes: define it"
        )

    @nn.nowrap
    def run_map(self, x: jax.Array) -> jax.Array:
        """The last block's output x as a map of the image, (batch, rows, columns, dim)."""
        if x.ndim == 4:
            return x
        raise ValueError(
            f"{type(self).__name__} has no map (batch, rows, columns, dim) of the image: its "
            f"blocks return shape {x.shape}. Define run_map, which turns that into a map, or "
            "choose a model whose tokens are patches of the image, or a ResNet"
        )

    @nn.nowrap
    def run_logits(self, features: jax.Array, *, train: bool) -> jax.Array:
        """The logits (batch, num_classes), float32, from the features (batch, dim)."""
        if self.classifier_head is not None:
            head = self.classifier_head(num_classes=self.num_classes, train=train, name="head")
        else:
            head = nn.Dense(self.num_classes, kernel_init=self.head_init, name="head")
        return head(features)

    @nn.nowrap
    def run_head(self, x: jax.Array, *, train: bool) -> jax.Array:
        """The logits (batch, num_classes), float32, from the last block's output x (batch, ...)."""
        return self.run_logits(self.run_features(x, train=train), train=train)

    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        mask: jax.Array | None = None,
        noise_strength: jax.Array | float | Sequence[jax.Array | float] | None = None,
        index: jax.Array | None = None,
    ) -> jax.Array:
        """Classifies images.

        Args:
          images: (batch, height, width, channels), float, normalised.
          train: turns on dropout, stochastic depth, the injection's training noise, and the use of
            the batch's own statistics in batch norms.
          mask: (batch,) bool, True for real examples; used only by the noise.
          noise_strength: a scalar that replaces the injection's own strength; may be traced. With
            several injections, a tuple or an array with one strength for each.
          index: (batch,) int32, the number that seeds each example's random noise; by default its
            place in the batch.

        Returns:
          The logits, (batch, num_classes), float32.

        Raises:
          ValueError: if the images are not of the model's size.
        """
        call = {"mask": mask, "noise_strength": noise_strength, "index": index}
        return self._run(images, train=train, **call)[0]

    def forward(
        self,
        x: jax.Array,
        *,
        start: int | Literal["features"] = 0,
        end: int | Literal["map", "features", "logits"] = "logits",
        **call: Any,
    ) -> jax.Array:
        """Runs part of the model: ``model.apply(variables, x, end="features", method="forward")``.

        Args:
          x: for ``start=0``, images; for a layer's number, the input of its block, (batch, ...);
            for "features", the features (batch, dim) that the last dense layer takes.
          start: where to begin.
          end: what to return: the input of a layer's block, the last block's output as a map
            (batch, rows, columns, dim), the features, or the logits.
          **call: the keywords of `__call__`.

        Returns:
          The value that `end` names.

        Raises:
          ValueError: the model has no such layer or no map, or the start is not before the end.
          NotImplementedError: "features" of a model that does not define `run_features`.
        """
        places: dict[int | str, int] = {layer: layer for layer in range(self.num_layers + 1)}
        last = self.num_layers + 1
        places |= {"map": last, "features": last, "logits": last + 1}
        for place in (start, end):
            if place not in places:
                self._require_layer(place)
        if not places[start] < places[end]:
            raise ValueError(f"start={start!r}, end={end!r}: the start must be before the end")
        return self._run(x, first=start, end=end, **call)[0]

    def record_inputs(
        self, images: jax.Array, layers: Collection[int], **call: Any
    ) -> tuple[jax.Array, dict[int, jax.Array]]:
        """Returns the output of `__call__`, and the inputs of some layers' blocks.

        Call it by ``model.apply(variables, images, layers, method="record_inputs")``.

        Args:
          images: (batch, height, width, channels), float, normalised.
          layers: the numbers, from 1, of the layers whose inputs to return.
          **call: the keywords of `__call__`.

        Returns:
          The logits (batch, num_classes), and a dict from layer to its block's input, (batch, ...).

        Raises:
          ValueError: the model has no such layer.
        """
        for layer in layers:
            self._require_layer(layer)
        logits, inputs = self._run(images, **call)
        return logits, {layer: inputs[layer] for layer in layers}

    def resume(self, x: jax.Array, layer: int, **call: Any) -> jax.Array:
        """Computes the logits from the input of a layer's block.

        Call it by ``model.apply(variables, x, layer, method="resume")``. Nothing before the layer
        is computed, and noise that would enter there is left out.

        Args:
          x: (batch, ...), as `record_inputs` returns it.
          layer: from 1.
          **call: the keywords of `__call__`.

        Returns:
          The logits, (batch, num_classes), float32.

        Raises:
          ValueError: the model has no such layer.
        """
        self._require_layer(layer)
        return self._run(x, first=layer, **call)[0]

    @nn.compact
    def _run(
        self,
        x: jax.Array,
        *,
        first: int | Literal["features"] = 0,
        end: int | Literal["map", "features", "logits"] = "logits",
        train: bool = False,
        mask: jax.Array | None = None,
        noise_strength: Any = None,
        index: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[int, jax.Array]]:
        """The value that `end` names, and the blocks' inputs from layer `first` on; see `forward`.

        The compiler drops the outputs that a caller does not use.
        """
        if first == "features":
            return self.run_logits(x, train=train), {}
        if not first:
            checks.require_images(x, self.image_shape)
        checks.require_one_for_each(x, mask=mask, index=index)
        taps = noise.open_taps(
            self,
            self.injection,
            num_layers=self.num_layers,
            train=train,
            mask=mask,
            strength=noise_strength,
            index=index,
            prefix_tokens=self.prefix_tokens,
        )
        shape = None if first else x.shape[1:]
        if not first:
            x = self.run_embed(taps(x, point="image"), train=train)
        inputs = {}
        whole = end == "map" or (end == "logits" and self.image_head is not None)
        for layer in range(first or 1, self.num_layers + 1):
            if layer == end:
                return x, inputs
            inputs[layer] = x
            if layer == self.num_layers and not whole:
                x = self.run_last_block(x, taps, train=train)
            else:
                x = self.run_block(x, taps, layer=layer, train=train)
            taps.require_passed(layer, model=type(self).__name__)
            self._require_named(layer)
        if end == "features":
            return self.run_features(x, train=train), inputs
        if end == "map":
            return self.run_map(x), inputs
        if self.image_head is not None:
            return self._run_image_head(x, shape), inputs
        return self.run_head(x, train=train), inputs

    @nn.nowrap
    def _run_image_head(self, x: jax.Array, shape: tuple[int, ...] | None) -> jax.Array:
        """The image head's output for the last block's output x, for images of this shape."""
        assert self.image_head is not None, "called with an image head only"
        if shape is None:
            raise ValueError(
                "a model with an image head must start from images, because its head needs their "
                "shape"
            )
        return self.image_head(name="decoder")(self.run_map(x), shape)

    @nn.nowrap
    def _require_layer(self, layer: int | str) -> None:
        if not (isinstance(layer, int) and 1 <= layer <= self.num_layers):
            raise ValueError(
                f"layer={layer!r}: the layers of this {type(self).__name__} are 1 to "
                f"{self.num_layers}"
            )

    @nn.nowrap
    def _require_named(self, layer: int) -> None:
        """Raises ValueError unless the block has the name by which optimizers find it."""
        name = self.layer_name(layer)
        if self.scope is not None and not self.scope.name_reserved(name):
            raise ValueError(
                f"{type(self).__name__}.run_block created no submodule {name!r} for layer={layer}: "
                "give the block name=self.layer_name(layer), or let layer_name return its name"
            )
