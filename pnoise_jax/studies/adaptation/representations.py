"""How the runs of a study represent images: features of both domains, and gate maps."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from pnoise_jax import data, parallel
from pnoise_jax.adaptation import AdaptationTask, binary_entropy, find_sown
from pnoise_jax.evaluation import normalise
from pnoise_jax.studies.adaptation.methods import StudyRun
from pnoise_jax.training import Experiment, Run, inputs, restore

EXAMPLES = 150  # of each domain in the embedding
_MAPS = 6  # images
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Embedding:
    """Features of both domains in two dimensions.

    Attributes:
      points: (n, 2), those of the source first.
      source: (n,) bool, True for the source.
      labels: (n,).
      kind: "t-SNE", or "PCA" if there are few points.
    """

    points: np.ndarray
    source: np.ndarray
    labels: np.ndarray
    kind: str


@dataclasses.dataclass(frozen=True, eq=False)
class GateMaps:
    """The transferability that TVT's gate assigns to the patches of some target images.

    Attributes:
      images: (n, height, width, channels), uint8, preprocessed for the model.
      entropy: (n, rows, columns), in bits, averaged over heads; 1 if a patch reveals nothing about
        its domain.
    """

    images: np.ndarray
    entropy: np.ndarray


def restore_run(run: StudyRun, path: Path) -> Run:
    """Restores the newest checkpoint of a run."""
    config = run.experiment.config
    return restore(path, config, mesh=parallel.data_mesh(), report=lambda _: None)


def embed(run: Run) -> Embedding | None:
    """Embeds the features of both domains, without noise; None if the model defines no features.

    The images, each preprocessed as for the run's model, and the seed are the same for every run.

    Raises:
      ValueError: the task of the run has no source.
    """
    features, labels, domains = [], [], []
    both = source_as_seen(run.experiment), run.experiment.test_data
    for is_source, dataset in zip((True, False), both, strict=True):
        chosen = _choose(len(dataset), EXAMPLES)
        try:
            features.append(_features(run, dataset, chosen))
        except NotImplementedError:
            return None
        labels.append(dataset.labels[chosen])
        domains.append(np.full(len(chosen), is_source))
    points, kind = _project(np.concatenate(features))
    return Embedding(points, np.concatenate(domains), np.concatenate(labels), kind)


def _choose(n: int, count: int) -> np.ndarray:
    return np.sort(np.random.default_rng(0).permutation(n)[:count])


def _project(features: np.ndarray) -> tuple[np.ndarray, str]:
    """Projects to two dimensions, by t-SNE that starts from PCA, or by PCA alone for few points."""
    from sklearn.decomposition import PCA  # scikit-learn is slow to import
    from sklearn.manifold import TSNE

    n = len(features)
    if n < 30:
        return PCA(2, random_state=0).fit_transform(features), "PCA"
    embedding = TSNE(2, perplexity=min(30.0, n / 5), init="pca", max_iter=500, random_state=0)
    return embedding.fit_transform(features), "t-SNE"


def _features(run: Run, dataset: data.Dataset, chosen: np.ndarray) -> np.ndarray:
    task = run.experiment.task
    model = task.model.clone(injection=None)

    @jax.jit
    def features(variables, images):
        x = normalise(images, task.mean, task.std)
        return model.apply(variables, x, end="features", train=False, method="forward")

    parts = []
    for start in range(0, len(chosen), _AT_ONCE):
        images = np.stack([dataset[int(i)]["image"] for i in chosen[start : start + _AT_ONCE]])
        parts.append(np.asarray(features(run.variables, images), np.float32))
    return np.concatenate(parts)


def map_gate(run: Run) -> GateMaps | None:
    """Returns the gate's entropy for some images of the target; None if the model has no gate."""
    task, target = run.experiment.task, run.experiment.test_data
    if getattr(task.model, "key_gate", None) is None:
        return None
    model = task.model.clone(injection=None)
    images = np.stack([target[int(i)]["image"] for i in _choose(len(target), _MAPS)])

    @jax.jit
    def entropy_of(variables, images):
        x = normalise(images, task.mean, task.std)
        _, stored = model.apply(variables, x, train=False, mutable=["intermediates"])
        return binary_entropy(find_sown(stored["intermediates"], "domain_logits"))

    entropy = np.asarray(entropy_of(run.variables, images), np.float32)
    height, width = images.shape[1:3]
    rows = round((entropy.shape[1] * height / width) ** 0.5)
    return GateMaps(images, entropy.mean(-1).reshape(len(images), rows, -1))


def source_as_seen(experiment: Experiment) -> data.Dataset:
    """Returns the source of a run, with images preprocessed like the target's in evaluation.

    Raises:
      ValueError: the task of the run has no source.
    """
    if not isinstance(experiment.task, AdaptationTask):
        raise ValueError(f"the task {experiment.config.task.name!r} has no source")
    height, width, _ = experiment.test_data[0]["image"].shape
    return inputs.transformed(experiment.config, experiment.task.source_data, (height, width))
