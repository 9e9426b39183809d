"""What the figures of a study show, and of which runs."""

import jax
import numpy as np

from pnoise_jax import training
from pnoise_jax.studies.adaptation.figures import _confusions
from pnoise_jax.studies.adaptation.measuring import Measured
from pnoise_jax.studies.adaptation.methods import Method
from pnoise_jax.studies.adaptation.representations import embed
from tests.adaptation import domains

LABELS = np.arange(8) % 2


def measured(name, right):
    correct = np.arange(8) < right
    predicted = np.where(correct, LABELS, 1 - LABELS)
    return Measured(Method(name), 0, LABELS, {"clean": predicted}, {"clean": correct}, {}, ())


def test_no_method_that_saw_target_labels_counts_as_adapted():
    """A row of one's own may learn from them, under any name."""
    runs = [measured("source_only", 3), measured("tvt", 5), measured("long_upper_bound", 8)]
    shown = _confusions(runs, {Method("source_only"), Method("tvt")})
    assert list(shown) == [Method("source_only"), Method("tvt")]


def test_a_model_embeds_images_of_its_own_size():
    """Methods of one study may have images of other sizes, as in configs/uda_office_home.py."""
    size = dict.fromkeys(("data.train_transform", "data.test_transform"), "resize_square")
    config = domains.config("source_only", **size, **{"model.image_size": 16})
    config.model.patch_size = 8
    config.task.source_split, config.data.test_split = "train[:16]", "test[:12]"
    experiment = training.build(config)
    state = jax.jit(experiment.initial_state)(jax.random.key(0), None)
    embedding = embed(training.Run.of(experiment, state))
    assert embedding.points.shape == (16 + 12, 2)
    assert embedding.source.sum() == 16
