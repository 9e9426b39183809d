"""CDTrans: cross-attention between source and target images of the same class."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pnoise_jax import data, models
from pnoise_jax.adaptation.cdtrans import pseudo_labels
from pnoise_jax.adaptation.cdtrans.branches import STREAMS, BnNeck, run_branches
from pnoise_jax.adaptation.cdtrans.embedding import embed
from pnoise_jax.adaptation.cdtrans.pair_batches import PairBatches, PairOrder
from pnoise_jax.adaptation.cdtrans.pairs import describe_pairs, empty_pairs, fill_pairs
from pnoise_jax.adaptation.losses import cross_entropy
from pnoise_jax.adaptation.paired_batches import target_seed
from pnoise_jax.adaptation.task import LOSS, AdaptationTask
from pnoise_jax.evaluation import Measure
from pnoise_jax.training import Metrics, State, StepContext, model_parameters


@dataclasses.dataclass(frozen=True)
class NeckFactory:
    """Creates the head. All instances are equal."""

    def __call__(self, *, num_classes: int, train: bool, name: str) -> BnNeck:
        """Returns the head as a submodule."""
        return BnNeck(num_classes=num_classes, train=train, name=name)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CdTrans(AdaptationTask):
    """CDTrans (https://arxiv.org/abs/2109.06165) on any transformer.

    The model first learns from the source alone, with the config's label smoothing. After that, the
    target images get new pseudo labels at regular intervals, and each image is paired with its
    nearest image in the other domain if their labels agree. For each pair, the model runs three
    streams: the source image, the target image, and a fusion with the source's queries and the
    target's keys and values. The loss is a weighted sum of the cross-entropy of the source, the
    cross-entropy of the target with its pseudo label, and the distillation from the fusion to the
    target.

    Durations are written as in a config; epochs are those of the target's training split.
    Pretrained weights must be for the backbone only: set weights_head="fresh".

    The published settings: 10 epochs of stage 1 and 40 of stage 2, each with its own warm-up; SGD
    with momentum 0.9, weight decay 1e-4, learning rate 0.008 (twice that for biases), gradients
    clipped at 1; label_smoothing=0.1; DeiT weights; model.drop_path=0.1. The stage with pairs uses
    no label smoothing. Here both stages are one run, so one schedule spans both.

    Attributes, in addition to those of every `AdaptationTask`:
      source_duration: how long to train on the source alone.
      pair_every: how long to keep pairs and pseudo labels before computing new ones.
      source_weight, pseudo_weight, distillation_weight: weights of the three terms; 0 turns a term
        off.
      same_label: whether to keep only pairs whose labels agree, the published "center-aware"
        filter.
      detach: whether to stop the gradient of the distillation at its teacher, the fusion; False
        matches the published code.
      swap: whether to train the fusion on the pseudo labels, with the target as its teacher, as in
        the published code before April 2022.
    """

    source_duration: str = "10 epochs"
    pair_every: str = "10 epochs"
    source_weight: float = 1.0
    pseudo_weight: float = 1.0
    distillation_weight: float = 1.0
    same_label: bool = True
    detach: bool = True
    swap: bool = False

    step_measures: ClassVar[tuple[Measure, ...]] = (
        *AdaptationTask.step_measures,
        LOSS("pseudo_loss", "pseudo-label loss"),
        LOSS("distillation", "distillation"),
        Measure("pairs", "pairs", 0, "number"),
        Measure("pseudo_classes", "classes of the pseudo labels", 0, "number"),
    )

    @classmethod
    def prepare_model(cls, model: models.Classifier, **options: Any) -> models.Classifier:
        """Returns the model with its head behind a batch norm.

        Raises:
          ValueError: the model is not a transformer.
        """
        del options
        if not hasattr(model, "key_gate"):
            raise ValueError(
                f"{type(model).__name__} is not a transformer, which CDTrans needs: choose one, "
                "for example vit_b_16, or task.name='dann'"
            )
        return model.clone(classifier_head=NeckFactory())

    def check(self) -> None:
        """Raises ValueError if no step has pairs, or the model cannot run three streams."""
        super().check()
        total, first = self.require_setup().total_steps, self._first
        if first >= total:
            raise ValueError(
                f"task.source_duration={self.source_duration!r} is {first} steps and the run has "
                f"{total}: no step with pairs is left; lower it, or raise duration"
            )
        if self._every < 1:
            raise ValueError(f"task.pair_every={self.pair_every!r} is less than one step")
        self._trace_branches()

    def _trace_branches(self) -> None:
        """Raises ValueError unless the model can run three streams of a micro-batch."""
        setup = self.require_setup()
        size = setup.config.batch_size // setup.config.accumulate
        shape = size, *setup.test_data.require_image_shape()
        images = jax.ShapeDtypeStruct(shape, jnp.float32)

        def trace(images: jax.Array) -> jax.Array:
            rngs = {"params": jax.random.key(0), "noise": jax.random.key(0)}
            rngs |= {"dropout": jax.random.key(0)}
            variables = self.model.init(rngs, images)
            x: Any = self.model.apply(variables, images, end=1, method="forward", rngs=rngs)
            streams = jnp.stack([x] * len(STREAMS))
            return run_branches(self.model, variables, streams, [rngs] * len(STREAMS))

        jax.eval_shape(trace, images)

    def init(self, key: jax.Array, images: jax.ShapeDtypeStruct) -> dict[str, Any]:
        """Returns the model's collections, and arrays for the largest possible number of pairs."""
        pairs = empty_pairs(len(self.source_data), len(self.require_setup().train_data))
        return {**super().init(key, images), "pairs": pairs}

    @property
    def _first(self) -> int:
        """The first step with pairs."""
        return self.require_setup().cut_steps(self.source_duration, "task.source_duration")

    @property
    def _every(self) -> int:
        return self.require_setup().cut_steps(self.pair_every, "task.pair_every")

    @property
    def preparations(self) -> range:
        """The steps before which `prepare` computes pairs."""
        return range(self._first, self.require_setup().total_steps, self._every)

    def prepare(
        self,
        variables: Mapping[str, Any],
        state: State,
        step: int,
        *,
        mesh: jax.sharding.Mesh,
        report: Callable[[str], None],
    ) -> State:
        """Computes pseudo labels and pairs with the weights of this step.

        Raises:
          ValueError: there are no pairs.
          StoppedError: the main program received a signal to stop.
        """
        target = self._unlabelled(np.zeros(len(self.require_setup().train_data), np.int32))
        source_features, _ = self._embed(variables, self.source_data, mesh)
        features, logits = self._embed(variables, target, mesh)
        labels = pseudo_labels.pseudo_labels(features, np.asarray(jax.nn.softmax(logits)))
        pairs = pseudo_labels.find_pairs(
            source_features,
            features,
            self.source_data.labels,
            labels,
            same_label=self.same_label,
        )
        names = self.require_setup().test_data.class_names or list(
            map(str, range(self.model.num_classes))
        )
        for sentence in describe_pairs(pairs, labels, step=step, class_names=names):
            report(sentence)
        if not len(pairs):
            raise ValueError(
                f"task: at step {step} no pair is left: no image's nearest neighbour in the other "
                "domain has its label. Raise task.source_duration, lower "
                "optimizer.learning_rate, or set task.same_label=False"
            )
        return {**state, "pairs": fill_pairs(state["pairs"], pairs, labels)}

    def _embed(
        self, variables: Mapping[str, Any], dataset: data.Dataset, mesh: jax.sharding.Mesh
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the batch norm's output and the logits for all images, in evaluation mode."""
        images = self.require_setup().without_augmentation(dataset)
        return embed(
            self.model, variables, images, mesh=mesh, mean=self.mean, std=self.std, sown="neck"
        )

    def _unlabelled(self, labels: np.ndarray) -> data.Dataset:
        """Returns the target's training split with these labels instead of its own."""
        return dataclasses.replace(self.require_setup().train_data, labels=labels)

    def open_batches(self, start: int = 0) -> data.BatchIterator:
        """Opens the batches {"image", "label"} of the source, for the steps without pairs."""
        return self.open_source(start)

    def open_period(self, start: int, state: State) -> data.BatchIterator | PairBatches:
        """Opens the batches of a period.

        They are {"image", "label"} of the source before there are pairs, and {"image", "label",
        "target_image", "pseudo_label"} after that.
        """
        if start < self._first:
            return self.open_source(start)
        pairs = {name: np.array(x) for name, x in jax.device_get(state["pairs"]).items()}
        config, count = self.require_setup().config, int(pairs["count"])
        first = start - (start - self._first) % self._every
        target = self._unlabelled(pairs["pseudo_label"])

        def open_side(dataset: data.Dataset, name: str, seed: int) -> data.BatchIterator:
            side = pairs[name][:count]
            order = PairOrder(side, config.batch_size, first, config.seed)
            return self.open_stream(dataset, seed, start, index_at=order)

        return PairBatches(
            open_side(self.source_data, "source", config.seed),
            open_side(target, "target", target_seed(config.seed)),
        )

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """Returns the weighted sum of the terms, and each as a metric; without pairs, the first."""
        pairs = state["pairs"]
        more = {"pairs": pairs["count"], "pseudo_classes": pairs["classes"]}
        more = {name: x.astype(jnp.float32) for name, x in more.items()}
        if "target_image" not in batch:
            logits, after = self.apply(params, state, self.normalise(batch["image"]), context)
            loss, metrics = self.source_loss(logits, batch["label"])
            zero = jnp.zeros((), jnp.float32)
            metrics |= {"pseudo_loss": zero, "distillation": zero} | more
            return loss, (after, metrics)
        (source, target, fusion), after = self._logits(params, state, batch, context)
        # No label smoothing here, as published.
        class_loss = cross_entropy(source, batch["label"])
        learner, teacher = (fusion, target) if self.swap else (target, fusion)
        terms = {
            "class_loss": class_loss,
            "pseudo_loss": cross_entropy(learner, batch["pseudo_label"]),
            "distillation": distillation(teacher, learner, detach=self.detach),
        }
        loss = (
            self.source_weight * class_loss
            + self.pseudo_weight * terms["pseudo_loss"]
            + self.distillation_weight * terms["distillation"]
        )
        top1 = 100 * (source.argmax(-1) == batch["label"]).mean(dtype=jnp.float32)
        return loss, (after, terms | {"source_top1": top1} | more)

    def _logits(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], State]:
        """Returns the logits of source, target and fusion, (batch, classes) each, and the state."""
        images = self.normalise(batch["image"]), self.normalise(batch["target_image"])
        starts = [
            self.features(params, state, x, context, domain=domain, end=1)[0]
            for domain, x in zip(STREAMS, images, strict=False)
        ]
        rngs = [
            {kind: context.keys[f"{prefix}{kind}"] for kind in ("noise", "dropout")}
            for prefix in ("", "target_", "fusion_")
        ]
        strength = context.noise_strength
        features = run_branches(
            self.model,
            {"params": model_parameters(params), "batch_stats": state["batch_stats"]},
            jnp.stack([*starts, starts[1]]),
            rngs,
            **({} if strength is None else {"noise_strength": strength}),
        )
        logits = {}
        for name in ("source", "fusion", "target"):  # running statistics as published
            x = features[STREAMS.index(name)]
            logits[name], state, _ = self.classify(params, state, x, context, domain=name)
        return (logits["source"], logits["target"], logits["fusion"]), state


def distillation(teacher: jax.Array, learner: jax.Array, *, detach: bool) -> jax.Array:
    """Returns the mean cross-entropy of the learner's predictions with the teacher's, in nats.

    Args:
      teacher, learner: logits, (batch, classes).
      detach: whether to stop the gradient at the teacher.
    """
    p = jax.nn.softmax(teacher)
    p = jax.lax.stop_gradient(p) if detach else p
    return -(p * jax.nn.log_softmax(learner)).sum(-1).mean()
