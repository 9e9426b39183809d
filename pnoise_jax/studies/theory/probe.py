"""Measures with a probe how much a model's features tell about the label, image by image."""

import dataclasses

import jax
import numpy as np

from pnoise_jax import data, evaluation, noise
from pnoise_jax.noise import information
from pnoise_jax.studies.theory.finding import Finding
from pnoise_jax.training import Run

K = 10  # images in a batch
_FOLDS = 5
_PENALTY = 0.1  # inverse strength of the probe's L2 penalty; fixed, so the bound holds
_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class LabelInformation:
    """A lower bound on I(Y_i; Z_i) between an image's label and its features.

    Attributes:
      nats: the bound in nats; at most the entropy of the labels.
      interval: its 95 % interval, over batches.
      accuracy: the probe's accuracy in percent.
    """

    nats: float
    interval: tuple[float, float]
    accuracy: float


def label_information(
    features: np.ndarray, labels: np.ndarray, batches: np.ndarray
) -> LabelInformation:
    """Returns H(Y) minus the cross-entropy of a logistic regression on held-out examples.

    The cross-entropy of any classifier is at least H(Y | Z), so in expectation this is at most the
    information. Cross-validation never splits a batch between training and testing.

    Args:
      features: (n, dim).
      labels: (n,) in 0..classes-1.
      batches: (n,), the number of each example's batch.

    Raises:
      ValueError: a class occurs in fewer batches than there are folds.
    """
    # Imported here because importing scikit-learn is slow.
    from sklearn import linear_model, model_selection, pipeline, preprocessing

    label_of, _ = np.unique(np.stack([labels, batches]), axis=1)  # each class and batch once
    classes, counts = np.unique(label_of, return_counts=True)
    if counts.min() < _FOLDS:
        raise ValueError(
            f"class {classes[counts.argmin()]} is in {counts.min()} batches, but the probe needs "
            f"{_FOLDS}: give more examples, or smaller batches"
        )
    folds = model_selection.StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    gained, correct = np.empty(len(labels)), np.empty(len(labels), bool)
    entropy = information.entropy(np.bincount(labels) / len(labels))
    for train, test in folds.split(features, labels, batches):
        probe = pipeline.make_pipeline(
            preprocessing.StandardScaler(),
            linear_model.LogisticRegression(C=_PENALTY, max_iter=1000),
        )
        probe.fit(features[train], labels[train])
        log_p = probe.predict_log_proba(features[test])
        columns = np.searchsorted(probe.classes_, labels[test])
        gained[test] = entropy + log_p[np.arange(len(test)), columns]
        correct[test] = log_p.argmax(axis=1) == columns
    size = np.bincount(batches)
    shares = np.bincount(batches, gained)[size > 0] / size[size > 0]
    error = shares.std(ddof=1) / len(shares) ** 0.5
    mean = float(gained.mean())
    estimate = evaluation.student(mean, error, len(shares) - 1, confidence=_CONFIDENCE)
    return LabelInformation(mean, estimate.interval, 100 * float(correct.mean()))


def probe_run(run: Run, *, seed: int = 0) -> Finding:
    """Probes a trained model's features with noise at the input of its last block.

    Args:
      run: a run of a model that defines `run_features`, such as a ViT.
      seed: the seed of the shuffled order.
    """
    labels = run.experiment.test_data.labels
    kept = len(labels) - len(labels) % K  # whole batches
    rows = []
    for name, quality, order in (
        ("none", noise.CyclicShift(0.0), "shuffled"),
        ("halving", noise.Dense(-0.5 * np.eye(K)), "shuffled"),
        ("cyclic shift of 0.3", noise.CyclicShift(0.3), "shuffled"),
        ("optimal", noise.Optimal(), "shuffled"),
        ("cyclic shift of 0.3", noise.CyclicShift(0.3), "class_sorted"),
        ("optimal", noise.Optimal(), "class_sorted"),
    ):
        indices = data.evaluation_order(labels, order, seed=seed)[:kept]
        features = _features(run, quality, indices)
        told = label_information(features, labels[indices], np.arange(kept) // K)
        gain = quality.mutual_information(K)
        title = f"{name}, {order.replace('_', '-')}"
        rows.append((title, gain, told.nats, *told.interval, told.accuracy))
    columns = (f"transform, batches of {K}", "gain by eq. 13", "probe, nats", "from", "to")
    columns += ("probe's accuracy, %",)
    return Finding(9, "Label information in a model's features", columns, tuple(rows))


def _features(run: Run, quality: noise.QualityMatrix, indices: np.ndarray) -> np.ndarray:
    """Returns the features in the order of ``indices``, (n, dim), float32."""
    task = run.experiment.task
    transform = noise.LinearTransform(quality, group_size=K)
    model = task.model.clone(injection=noise.Injection(transform, inference=True))

    @jax.jit
    def features(variables, images):
        x = evaluation.normalise(images, task.mean, task.std)
        return model.apply(variables, x, end="features", train=False, method="forward")

    images = np.stack([run.experiment.test_data[int(i)]["image"] for i in indices])
    return np.asarray(features(run.variables, images), np.float32)
