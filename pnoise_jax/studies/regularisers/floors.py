"""The accuracy of simple classifiers on the same images: a nearest neighbour and an SVM.

Both are from scikit-learn and use pixels. Like the settings of the arms, theirs are chosen by
accuracy on the held-out training examples, from the same number of candidates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from pnoise_jax import data, evaluation
from pnoise_jax.studies.regularisers.plan import Setting

CONFIDENCE = 0.95

# Four candidates each, like the arms in configs/regularisers.py.
NEIGHBOURS = (
    {"metric": "euclidean"},
    {"metric": "manhattan"},
    {"metric": "cosine"},
    {"metric": "correlation"},
)
MACHINES = (
    {"C": 1.0, "gamma": "scale"},
    {"C": 10.0, "gamma": "scale"},
    {"C": 100.0, "gamma": "scale"},
    {"C": 10.0, "kernel": "linear"},
)


def measure_floors(config: ml_collections.ConfigDict, setting: Setting) -> dict[str, Any]:
    """Tunes and tests each classifier; returns its settings and its accuracy with an interval.

    The Clopper-Pearson interval is over test examples, as there are no seeds.

    Args:
      config: the config of the setting, with the location of the data.
      setting: the splits of the setting.
    """
    tuning, test = (_pixels(config, setting.splits(tuning=stage)) for stage in (True, False))
    floors = {}
    for name, candidates in (("1-NN", NEIGHBOURS), ("SVM", MACHINES)):
        held_out = [_score(name, options, *tuning) for options in candidates]
        chosen = candidates[int(np.argmax(held_out))]
        hits = _score(name, chosen, *test)
        estimate = evaluation.proportion(hits, len(test[3]), confidence=CONFIDENCE)
        floors[name] = {
            "chosen": chosen,
            "top1": estimate.value,
            "low": estimate.interval[0],
            "high": estimate.interval[1],
        }
    return floors


def _pixels(config: ml_collections.ConfigDict, splits: Mapping[str, str]) -> Sequence[np.ndarray]:
    """Returns pixels in [0, 1] and labels for training, then for evaluation."""
    section = config.data
    arrays = []
    for split in splits.values():
        part = data.load(section.name, split=split, data_dir=section.data_dir, cache=True)
        images = np.stack([part[i]["image"] for i in range(len(part))])
        arrays += [images.reshape(len(part), -1) / 255, part.labels]
    return arrays


def _score(
    name: str,
    options: Mapping[str, Any],
    images: np.ndarray,
    labels: np.ndarray,
    new_images: np.ndarray,
    new_labels: np.ndarray,
) -> int:
    """Fits a classifier to images, and returns how many new images it predicts correctly."""
    from sklearn.neighbors import KNeighborsClassifier  # scikit-learn is slow to import
    from sklearn.svm import SVC

    classifier = KNeighborsClassifier(1, **options) if name == "1-NN" else SVC(**options)
    return int((classifier.fit(images, labels).predict(new_images) == new_labels).sum())
