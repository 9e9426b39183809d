"""The base class of all adaptation methods: two domains, their batches and their evaluation."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import jax
import numpy as np

from pnoise_jax import data, evaluation
from pnoise_jax.adaptation.losses import cross_entropy
from pnoise_jax.adaptation.paired_batches import PairedBatches, target_seed
from pnoise_jax.data import class_names
from pnoise_jax.evaluation import Measure
from pnoise_jax.training import Metrics, Setup, State, StepContext, Task, model_parameters

PERCENT = functools.partial(Measure, digits=1, unit="percent")
LOSS = functools.partial(Measure, digits=4, unit="nats, mean")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class AdaptationTask(Task):
    """Learns from a labelled source and an unlabelled target; evaluates on the target.

    The config's data section describes the target domain. A batch has batch_size images of each
    domain, and noise that mixes examples does not mix the domains.

    Attributes, in addition to those of every `Task`:
      source: name of the labelled data set, whose classes must have the target's names.
      source_split: the split of the source to train on.
      label_smoothing: smoothing of the source's labels, from the config.
    """

    source: str = ""
    source_split: str = "train"
    label_smoothing: float = dataclasses.field(default=0.0, metadata={"from_config": True})

    target_fields: ClassVar[tuple[str, ...] | None] = ("label_smoothing",)
    step_measures: ClassVar[tuple[Measure, ...]] = (PERCENT("source_top1", "source top-1"),)
    row_measures: ClassVar[tuple[Measure, ...]] = (
        PERCENT("top1", "top-1"),
        PERCENT("per_class_mean", "mean per class"),
        Measure("nll", "NLL", 3, "nats, mean"),
    )

    @classmethod
    def from_setup(cls, setup: Setup, **options: Any) -> Self:
        """Creates the task, with the config's label smoothing.

        Raises:
          ValueError: no source is named, or a weight is negative.
        """
        if not options.get("source"):
            raise ValueError("source='' names no data set: set it to the labelled data set")
        for name, value in options.items():
            if name.endswith("_weight") and not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value!r}: give a number of at least 0; 0 turns it off")
        smoothing = setup.config.label_smoothing
        return super().from_setup(setup, label_smoothing=smoothing, **options)

    def __post_init__(self) -> None:
        if getattr(self.model, "distilled", False):
            raise ValueError(
                "the model has two tokens, each with its own head, and adaptation tasks use only "
                "one: choose a model with only a class token"
            )

    @functools.cached_property
    def source_data(self) -> data.Dataset:
        """The labelled split, with its classes numbered like the target's.

        Raises:
          ValueError, OSError: the split cannot be read, or the domains' classes differ; the message
            lists the differences.
        """
        source, match = self._matched_source
        names = self.require_setup().test_data.class_names
        if match.kind == "mapped" and names is not None:
            return source.relabelled(match.order, names)
        return source

    @functools.cached_property
    def _matched_source(self) -> tuple[data.Dataset, class_names.Match]:
        """The labelled split as stored, and how its classes match those of the target."""
        target, source = self.require_setup().test_data, self._load_source()
        named = f"data.name={target.name!r} and task.source={self.source!r}"
        theirs, ours = target.class_names, source.class_names
        try:
            match = class_names.match_classes(theirs, ours, whose=named, number=source.num_classes)
        except class_names.DifferentClassesError as error:
            raise ValueError(f"{error}: give two domains with the same classes") from error
        missing = []
        if match.kind == "mapped" and theirs is not None:
            missing = [name for label, name in enumerate(theirs) if label not in match.order]
        if source.num_classes != target.num_classes or missing:
            raise ValueError(
                f"{named} have {target.num_classes} and {source.num_classes} classes"
                + (f"; the source lacks {', '.join(missing[:5])}" if missing else "")
                + ": give two domains with the same classes"
            )
        return source, match

    def _load_source(self) -> data.Dataset:
        section = self.require_setup().config.data
        try:
            return data.load(
                self.source, split=self.source_split, data_dir=section.data_dir, cache=section.cache
            )
        except (ValueError, OSError) as error:
            kind = ValueError if isinstance(error, ValueError) else OSError
            named = f"task.source={self.source!r} with task.source_split={self.source_split!r}"
            raise kind(f"{named} is loaded like any data set: {error}") from error

    def check(self) -> None:
        """Raises ValueError if the domains cannot be trained on."""
        super().check()
        config, source = self.require_setup().config, self.source_data
        section = config.data
        self._require_another_domain()
        if config.batch_size > len(source):
            raise ValueError(
                f"batch_size={config.batch_size} is larger than "
                f"task.source_split={self.source_split!r} of {self.source!r}, which has "
                f"{len(source)} examples; lower batch_size"
            )
        ours, theirs = source.image_shape, self.require_setup().test_data.image_shape
        if ours and theirs and ours[-1] != theirs[-1]:
            raise ValueError(
                f"the images of task.source={self.source!r} have {ours[-1]} channels and those of "
                f"data.name={section.name!r} have {theirs[-1]}: give two domains with the same "
                "number of channels"
            )

    def _require_another_domain(self) -> None:
        """Raises ValueError if the source contains training or test images of the target."""
        setup = self.require_setup()
        splits = {
            f"data.test_split={setup.config.data.test_split!r}": setup.test_data,
            f"data.train_split={setup.config.data.train_split!r}": setup.train_data,
        }
        for split, target in splits.items():
            if shared := data.count_shared(target, self.source_data):
                raise ValueError(
                    f"task.source={self.source!r} with task.source_split={self.source_split!r} and "
                    f"{split} of the target share {shared} images, whose labels no method may "
                    "learn: give splits that have no image in common, or another domain. To train "
                    "on the target's labels, set task.name='classification'"
                )

    def warn_of_data(self) -> list[str]:
        """Warns of classes that are matched by number alone or have no images in the source."""
        return [*self._warn_of_numbers(), *self._warn_of_absent_classes()]

    def _warn_of_numbers(self) -> list[str]:
        target, (source, match) = self.require_setup().test_data, self._matched_source
        both = (target.class_names, source.class_names)
        have_names = [not (names is None or class_names.are_numbers(names)) for names in both]
        if match.kind != "unknown" or not any(have_names):
            return []
        sides = [f"data.name={target.name!r}", f"task.source={self.source!r}"]
        if all(have_names):
            reason = f"{' and '.join(sides)} name their classes differently"
        else:
            named, numbered = sides if have_names[0] else reversed(sides)
            reason = f"the classes of {numbered} have numbers, and those of {named} have names"
        return [f"{reason}, so labels are compared by number alone"]

    def _warn_of_absent_classes(self) -> list[str]:
        source = self.source_data
        absent = np.setdiff1d(np.arange(source.num_classes), source.labels)
        if not len(absent):
            return []
        names = [source.class_names[i] if source.class_names else str(i) for i in absent[:5]]
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        return [
            f"task.source={self.source!r} with task.source_split={self.source_split!r} has no "
            f"image of {len(absent)} of the {source.num_classes} classes ({', '.join(names)}"
            f"{more}), so nothing is learned about them; its examples may be sorted by class"
        ]

    def describe_data(self) -> dict[str, Any]:
        """Describes the source, which a run records in addition to the target."""
        source = self.source_data
        return {
            "source": {
                "name": source.name,
                "version": source.version,
                "train_examples": len(source),
                "class_names": list(source.class_names or ()),
                "content": source.content,
            }
        }

    def open_source(self, start: int) -> data.BatchIterator:
        """Opens the batches of the source alone, from step ``start`` on."""
        return self.open_stream(self.source_data, self.require_setup().config.seed, start)

    def open_batches(self, start: int = 0) -> PairedBatches:
        """Opens the batches: {"image", "label"} of the source, and "target_image"."""
        seed = target_seed(self.require_setup().config.seed)
        return PairedBatches(
            self.open_source(start), self.open_stream(self.require_setup().train_data, seed, start)
        )

    def progress(self, step: jax.Array) -> jax.Array:
        """Returns the fraction of the run's steps before this one, a scalar."""
        return step / np.float32(self.require_setup().total_steps)

    def features(
        self,
        params: Any,
        state: State,
        images: jax.Array,
        context: StepContext,
        *,
        domain: str,
        store: Sequence[str] = (),
        coefficients: Mapping[str, Any] | None = None,
        start: int | Literal["features"] = 0,
        end: int | Literal["features", "logits"] = "features",
    ) -> tuple[jax.Array, State, Mapping[str, Any]]:
        """Returns the model's features of one domain, in training mode, with noise.

        Args:
          params, state, context: as in `loss`.
          images: normalised images, or the input that `Classifier.forward` expects at ``start``.
          domain: "source", "target" or another domain of the task; each has its own random streams.
          store: the collections of stored arrays to return.
          coefficients: the collection "coefficients".
          start, end: as in `Classifier.forward`; by default from images to features.

        Returns:
          The features (batch, dim), the state with new batch statistics, and the stored arrays.
        """
        prefix = "" if domain == "source" else f"{domain}_"
        strength = context.noise_strength
        call: dict[str, Any] = {} if strength is None else {"noise_strength": strength}
        variables = {"params": model_parameters(params), "batch_stats": state["batch_stats"]}
        if coefficients is not None:
            variables["coefficients"] = coefficients
        features, updated = self.model.apply(
            variables,
            images,
            train=True,
            method="forward",
            mutable=["batch_stats", *store],
            rngs={
                "noise": context.keys[f"{prefix}noise"],
                "dropout": context.keys[f"{prefix}dropout"],
            },
            start=start,
            end=end,
            **call,
        )
        state = {**state, "batch_stats": updated.get("batch_stats", {})}
        return features, state, {name: updated.get(name, {}) for name in store}

    def classify(
        self, params: Any, state: State, features: jax.Array, context: StepContext, *, domain: str
    ) -> tuple[jax.Array, State, Mapping[str, Any]]:
        """Returns the logits (batch, classes) of features, in training mode; see `features`."""
        return self.features(
            params,
            state,
            features,
            context,
            domain=domain,
            store=("intermediates",),
            start="features",
            end="logits",
        )

    def source_loss(self, logits: jax.Array, labels: Any) -> tuple[jax.Array, Metrics]:
        """Returns the cross-entropy of the source, and its metrics."""
        loss = cross_entropy(logits, labels, self.label_smoothing)
        top1 = 100 * (logits.argmax(-1) == labels).mean(dtype=np.float32)
        return loss, {"class_loss": loss, "source_top1": top1}

    def evaluate(
        self,
        variables: Mapping[str, Any],
        mesh: jax.sharding.Mesh,
        protocols: Sequence[evaluation.Protocol],
        *,
        report: Callable[[str], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Evaluates the target's test split; the rows also have the mean per-class accuracy."""
        setup = self.require_setup()
        config, target = setup.config, setup.evaluated_data
        rows = []
        for protocol in protocols:
            predictions = evaluation.predict(
                self.model,
                variables,
                target,
                protocol,
                mesh=mesh,
                mean=self.mean,
                std=self.std,
                seed=config.evaluation.seed,
                views=config.evaluation.views,
                report=report,
            )
            mean = evaluation.balanced_accuracy(target.labels, predictions.rank < 1)
            row = {**protocol.row(), **predictions.summary()}
            rows.append(row | {"per_class_mean": mean})
        return rows
