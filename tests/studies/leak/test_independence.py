"""The test helper passes functions of single examples, and otherwise names the culprit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pnoise_jax import models, noise, studies
from pnoise_jax.studies.leak.checks.dependence import check_batches
from pnoise_jax.studies.leak.checks.independence import largest_change
from tests.models.drawing import draw_variables

X = np.random.default_rng(0).normal(size=(13, 6)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)


def classify(x):
    return np.tanh(x) @ WEIGHTS


def mixed_by(transform):
    return lambda x: classify(np.asarray(transform(None, jnp.asarray(x))))


@pytest.mark.parametrize("constant", [-1e9, -65504.0, np.finfo(np.float32).min])
def test_a_masked_output_does_not_excuse_the_others(constant):
    masked = np.full((len(X), 2), constant, np.float32)
    apply = lambda x: np.concatenate([0.1 * (x + x.mean(axis=0)), masked[: len(x)]], axis=1)  # noqa: E731
    with pytest.raises(AssertionError, match="depends on its batch"):
        studies.assert_independent_of_batch(apply, X)
    studies.assert_independent_of_batch(
        lambda x: np.concatenate([0.1 * x, masked[: len(x)]], axis=1), X
    )


def test_large_outputs_do_not_excuse_small_ones():
    """Such as boxes in pixels and scores."""
    apply = lambda x: np.concatenate([1e4 * x, x + x.mean(axis=0)], axis=1)  # noqa: E731
    with pytest.raises(AssertionError, match="depends on its batch"):
        studies.assert_independent_of_batch(apply, X)


@pytest.mark.parametrize(
    ("apply", "why"),
    [
        (lambda x: x + x.mean(axis=0) + 1e6, "rounding may change them"),
        (lambda x: np.zeros((len(x), 3)) * x.sum(), "same outputs for all 13 examples, so none"),
    ],
)
def test_functions_for_which_nothing_can_be_seen_are_refused(apply, why):
    with pytest.raises(ValueError, match=why):
        studies.assert_independent_of_batch(apply, X)


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


@pytest.mark.parametrize(("examples", "calls"), [(2, 2), (3, 3), (10, 5), (13, 6), (256, 11)])
def test_every_pair_of_examples_is_separated_in_some_batch(examples, calls):
    x = np.random.default_rng(3).normal(size=(examples, 2))
    batches = []
    largest_change(lambda batch: batches.append(batch) or batch, x)
    assert len(batches) == 1 + calls
    replaced = np.stack([(batch != x).any(axis=1) for batch in batches[1:]])
    seen = (~replaced[:, :, None] & replaced[:, None]).any(axis=0)  # who stays, who is replaced
    assert (seen | np.eye(examples, dtype=bool)).all()
    assert (abs(replaced.mean(axis=1) - 0.5) < 0.2).all()  # so effects of many mates add up


def test_outputs_that_are_known_are_not_computed_again():
    batches = []

    def record(batch):
        batches.append(batch)
        return classify(batch)

    assert largest_change(record, X, classify(X)).size == 0
    assert not any(np.array_equal(batch, X) for batch in batches)


def test_one_example_that_looks_at_one_other_is_the_culprit():
    def peeks(x):
        logits = classify(x)
        logits[5] += 0.1 * x[9, :4]
        return logits

    with pytest.raises(AssertionError, match=r"example 5 depends .* Replacing example 9 alone"):
        studies.assert_independent_of_batch(peeks, X)


@pytest.mark.parametrize("quality", [noise.Optimal(), noise.Dense(np.full((13, 13), 1 / 13))])
def test_means_over_the_batch_are_noticed(quality):
    with pytest.raises(AssertionError, match="with other batch mates"):
        studies.assert_independent_of_batch(mixed_by(noise.LinearTransform(quality)), X)


def checked(apply):
    """The check in batches of two, in class order and three random orders."""
    rng = np.random.default_rng(6)
    by_kind = {"class_sorted": [np.arange(13)], "shuffled": [rng.permutation(13) for _ in range(3)]}
    return check_batches(lambda rows: X[rows], apply, by_kind, 2)


def test_outputs_that_other_examples_change_later_are_not_deterministic():
    assert checked(classify).deterministic
    seen = set()

    def drifts(x):  # the same for a batch until examples come that are not in it
        seen.update(map(bytes, x))
        return classify(x) + 0.1 * (len(seen) > 6)

    assert not checked(drifts).deterministic


@pytest.mark.parametrize("calls", [0, 1, 5, 20])
def test_logits_that_are_not_finite_are_refused(calls):
    count = iter(range(1000))

    def breaks(x):
        return classify(x) + (np.nan if next(count) == calls else 0)

    def stays_broken(x):
        return classify(x) + (np.nan if next(count) >= calls else 0)

    with pytest.raises(ValueError, match="finite"):
        checked(breaks)
    count = iter(range(1000))
    with pytest.raises(ValueError, match="finite"):
        checked(stays_broken)


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


@pytest.mark.parametrize(
    ("dtype", "makes"),
    [(np.uint8, np.asarray), (np.int32, jnp.asarray), (np.int64, np.ndarray.tolist)],
)
def test_integer_inputs_are_checked(dtype, makes):
    ids = np.random.default_rng(4).integers(0, 20, (9, 5)).astype(dtype)
    table = np.random.default_rng(5).normal(size=(20, 3))

    def embed(x):
        return table[np.asarray(x)].mean(axis=1)

    studies.assert_independent_of_batch(embed, makes(ids))
    with pytest.raises(AssertionError, match="example 0 depends on its batch"):
        studies.assert_independent_of_batch(lambda x: embed(x) - embed(x)[3], makes(ids))


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_class_numbers_must_be_equal(dtype):
    """A tolerance relative to the largest of 20 000 classes would excuse other classes nearby."""
    weights = np.random.default_rng(0).normal(size=(X.shape[1], 20_000))

    def classify(x):
        return (x @ weights).argmax(axis=1).astype(dtype)

    studies.assert_independent_of_batch(classify, X)
    with pytest.raises(AssertionError, match="with other batch mates"):
        studies.assert_independent_of_batch(lambda x: classify(x) + (x.sum() > X.sum()), X)
    with pytest.raises(AssertionError, match="depends on its place"):
        studies.assert_independent_of_batch(lambda x: classify(x) + 2 * np.arange(len(x)), X)
    with pytest.raises(AssertionError, match="alone, output 0 went"):
        studies.assert_independent_of_batch(lambda x: classify(x) + 9 * (len(x) == 1), X)
    studies.assert_independent_of_batch(lambda x: classify(x) + 9 * (len(x) == 1), X, atol=10)


def test_images_of_whole_numbers_may_be_rounded_otherwise_alone():
    studies.assert_independent_of_batch(lambda x: np.round(200 * x) + (len(x) == 1), X)


def test_low_precision_passes():
    weights = jnp.asarray(WEIGHTS, jnp.bfloat16)
    x = jnp.asarray(X, jnp.bfloat16)
    studies.assert_independent_of_batch(jax.jit(lambda x: jnp.tanh(x) @ weights), x)


def test_the_function_may_change_its_argument():
    def in_place(x):
        x -= 1
        return x

    studies.assert_independent_of_batch(in_place, X.copy())
    assert largest_change(in_place, X).size == 0


def test_training_mode_of_flax_is_noticed():
    model = nnx.BatchNorm(6, rngs=nnx.Rngs(0))
    with pytest.raises(AssertionError, match="depends on its batch: with other batch mates"):
        studies.assert_independent_of_batch(model, X)
    model.eval()
    studies.assert_independent_of_batch(model, X)


def test_the_size_of_the_batch_and_the_place_in_it_are_noticed():
    pattern = r"example \d+ depends on the size of its batch or its place in it, or .* alone, out"
    with pytest.raises(AssertionError, match=pattern):
        studies.assert_independent_of_batch(lambda x: x / len(x), X)
    pattern = r"example \d+ depends on its place in the batch: moved .* a whole batch does this"
    with pytest.raises(AssertionError, match=pattern):
        studies.assert_independent_of_batch(
            lambda x: x + jax.random.normal(jax.random.key(0), x.shape), X
        )


def test_what_cannot_be_evaluated_alone_depends_on_its_batch():
    def needs_two(x):
        if len(x) < 2:
            raise RuntimeError("more than 1 value per channel, please")
        return classify(x)

    pattern = (
        r"example 0 depends on its batch: .* with 12 others, but not alone \(RuntimeError: more"
    )
    with pytest.raises(AssertionError, match=pattern) as failure:
        studies.assert_independent_of_batch(needs_two, X)
    assert isinstance(failure.value.__cause__, RuntimeError)


def test_other_shapes_in_other_batches_are_errors():
    with pytest.raises(ValueError, match=r"shape \(\) for a batch of 1; .* \(squeeze"):
        studies.assert_independent_of_batch(lambda x: x.sum(axis=1, keepdims=True).squeeze(), X)
    with pytest.raises(
        ValueError, match=r"of shape \(19,\) .* 13 examples, but of shape \(7,\) in"
    ):
        studies.assert_independent_of_batch(lambda x: np.pad(x, ((0, 0), (0, len(x)))), X)

    def grows(x):
        return x if np.array_equal(x, X) else np.pad(x, ((0, 0), (0, 1)))

    with pytest.raises(ValueError, match=r"but of shape \(7,\) in another batch, of 13"):
        largest_change(grows, X)


def test_outputs_that_are_not_finite_in_some_batches_are_named():
    def breaks(x):
        outputs = classify(x)
        if x[3, 0] != X[3, 0]:
            outputs[4, 1] = np.nan
        return outputs

    with pytest.raises(ValueError, match=r"for example 4 when the examples 0, 1, 3, 6, 7, 8, 10"):
        largest_change(breaks, X)
    with pytest.raises(AssertionError, match=r"example 4 .* to nan .* example 3 alone .* by inf"):
        studies.assert_independent_of_batch(breaks, X)

    def breaks_at_large(x):
        return np.where(len(x) > 1, classify(x), np.inf)

    with pytest.raises(AssertionError, match=r"example 0 depends on the size .* to inf"):
        studies.assert_independent_of_batch(breaks_at_large, X)


def test_a_loader_is_tried_batch_by_batch():
    loader = [(X[:4], np.zeros(4)), (X[4:5], np.zeros(1)), (X[5:], np.zeros(8))]
    seen = []

    def first_batch_only(x):
        seen.append(len(x))
        return classify(x) + (x.mean(axis=0)[:4] if len(x) == 8 else 0)

    with pytest.raises(AssertionError, match=r"^batch 2 of the loader: example \d depends on its"):
        studies.assert_independent_of_batch(first_batch_only, loader)
    seen.clear()
    studies.assert_independent_of_batch(first_batch_only, iter(loader), batches=2)
    assert set(seen) == {4, 1}
    with pytest.raises(ValueError, match="gave 2 batches, none with two different examples"):
        studies.assert_independent_of_batch(classify, [(X[:1], [0]), (X[:1], [0])])
    with pytest.raises(ValueError, match="gave 0 batches"):
        studies.assert_independent_of_batch(classify, [])
    with pytest.raises(ValueError, match="batches=0; give at least 1"):
        studies.assert_independent_of_batch(classify, loader, batches=0)


def test_bad_input_is_named():
    generator = np.random.default_rng(3)
    with pytest.raises(ValueError, match=r"batch 1 of the loader: .* not finite for example 2"):
        studies.assert_independent_of_batch(
            lambda x: np.where(np.arange(len(x)) == 2, np.nan, x.sum(axis=1)) if len(x) > 4 else x,
            [(X[:4],), (X[4:],)],
        )
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


def test_a_place_in_the_batch_is_noticed():
    def second_is_overwritten(x):
        outputs = classify(x)
        outputs[1:2] = 1.0
        return outputs

    with pytest.raises(AssertionError, match=r"example \d depends on its place in the batch"):
        studies.assert_independent_of_batch(second_is_overwritten, X)


def test_padding_to_the_longest_is_not_said_to_leave_out_the_mates():
    """Every batch that is tried has an example of three; other mates would change the output."""
    x = np.array([[1.0, 1, 0], [1, 1, 1], [1, 1, 2], [1, 1, 3], [1, 1, 4], [1, 1, 5]])

    def mean_with_padding(x):
        return x.sum(axis=1, keepdims=True) / (x > 0).sum(axis=1).max()

    assert mean_with_padding(x[:2])[0] != mean_with_padding(x[[0, 0]])[0]
    with pytest.raises(AssertionError, match="padding to the longest") as caught:
        studies.assert_independent_of_batch(mean_with_padding, x)
    assert "but not on" not in str(caught.value)
