"""The test helper: it passes what treats examples one by one, and names the culprit of the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import models, noise, studies
from pnoise_jax.studies.leak.independence import largest_change
from tests.models.drawing import draw_variables

X = np.random.default_rng(0).normal(size=(13, 6)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)


def classify(x):
    return np.tanh(x) @ WEIGHTS


def mixed_by(transform):
    return lambda x: classify(np.asarray(transform(None, jnp.asarray(x))))


def test_a_function_of_single_examples_passes():
    studies.assert_independent_of_batch(classify, X)
    assert largest_change(classify, X).size == 0


@pytest.mark.parametrize("shift", [1, -1, 2, 3, 4, 6, 8, 12])
def test_every_neighbour_is_noticed(shift):
    transform = noise.LinearTransform(noise.CyclicShift(0.3, shift))
    with pytest.raises(AssertionError, match="depends on its batch") as failure:
        studies.assert_independent_of_batch(mixed_by(transform), X)
    words = str(failure.value).split()
    example, mate = int(words[1]), int(words[words.index("alone") - 1])
    assert (example - mate) % 13 == shift % 13  # x[i] receives x[i - shift]


def test_one_example_that_looks_at_one_other_is_the_culprit():
    def peeks(x):
        logits = classify(x)
        logits[5] += 0.1 * x[9, :4]
        return logits

    with pytest.raises(AssertionError, match=r"example 5 depends .* Replacing example 9 alone"):
        studies.assert_independent_of_batch(peeks, X)


@pytest.mark.parametrize("quality", [noise.Optimal(), noise.Dense(np.full((13, 13), 1 / 13))])
def test_means_over_the_batch_are_noticed(quality):
    with pytest.raises(AssertionError, match="with other examples beside it"):
        studies.assert_independent_of_batch(mixed_by(noise.LinearTransform(quality)), X)


def test_our_models_pass_without_noise_and_fail_with_it():
    injection = noise.Injection(noise.LinearTransform(noise.Optimal()), inference=True)
    options = {"stage_sizes": (1, 1), "width": 8, "stem": "small"}
    model = models.create_model("resnet18", num_classes=3, injection=injection, **options)
    images = np.random.default_rng(2).normal(size=(4, 8, 8, 1)).astype(np.float32)
    variables = draw_variables(model, images)
    plain = jax.jit(lambda x: model.clone(injection=None).apply(variables, x))
    studies.assert_independent_of_batch(plain, images)
    with pytest.raises(AssertionError, match="depends on its batch"):
        studies.assert_independent_of_batch(jax.jit(lambda x: model.apply(variables, x)), images)
    in_training = model.clone(injection=None)

    def batch_statistics(x):
        return in_training.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    with pytest.raises(AssertionError, match="depends on its batch"):
        studies.assert_independent_of_batch(jax.jit(batch_statistics), images)


def test_bad_input_is_named():
    generator = np.random.default_rng(3)
    with pytest.raises(ValueError, match="give a batch of at least two examples"):
        studies.assert_independent_of_batch(classify, X[:1])
    with pytest.raises(ValueError, match="all examples of x are alike"):
        studies.assert_independent_of_batch(classify, np.ones((4, 6)))
    with pytest.raises(ValueError, match=r"array of shape \(\) for a batch of 13"):
        studies.assert_independent_of_batch(lambda x: classify(x).sum(), X)
    with pytest.raises(ValueError, match="not finite"):
        studies.assert_independent_of_batch(lambda x: classify(x) * np.nan, X)
    with pytest.raises(ValueError, match="apply is not deterministic"):
        studies.assert_independent_of_batch(
            lambda x: classify(x) + generator.normal(size=(len(x), 4)), X
        )
