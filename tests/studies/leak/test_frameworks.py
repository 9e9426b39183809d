"""Models and arrays of any framework: real ones if they are installed."""

import contextlib
import os
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler, scale

from pnoise_jax import studies
from pnoise_jax.studies.leak.audited.examples import read_examples
from pnoise_jax.studies.leak.audited.frameworks import as_batch_function, as_numpy, like

X = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
LABELS = np.arange(9) % 3
DIGITS, CLASSES = (array[:300] for array in load_digits(return_X_y=True))


def test_outputs_become_numpy():
    for outputs in (
        X,
        X.tolist(),
        list(X),
        jnp.asarray(X),
        scipy.sparse.csr_array(X),
        (X,),
        [X],
        {"scores": X},
        {"logits": X, "hidden": X + 1},
        types.SimpleNamespace(logits=jnp.asarray(X), hidden=None),
    ):
        np.testing.assert_array_equal(as_numpy(outputs), X)
    halves = as_numpy(jnp.asarray([1.5, -2], jnp.bfloat16))
    assert halves.dtype == np.float32
    assert halves.tolist() == [1.5, -2]
    assert as_numpy([jnp.asarray(1.5), jnp.asarray(2.0)]).tolist() == [1.5, 2]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ((X, X), r"is the output in tuple of length 2 \(\(9, 6\), \(9, 6\)\); return one array"),
        ((X[0], X[0]), "is the output in tuple"),
        ([X, X], "is the output in list"),
        ({"a": X, "b": X[:, 0]}, r"dict of length 2 \('a': \(9, 6\), 'b': \(9,\)\)"),
        ({}, "dict of length 0"),
        (None, "expected an array of numbers; got NoneType"),
        (np.array(["cat"]), r"got numpy.ndarray of shape \(1,\)"),
    ],
)
def test_outputs_that_are_not_one_array_are_named(outputs, message):
    with pytest.raises(TypeError, match=message):
        as_numpy(outputs)


def test_functions_get_the_type_of_the_examples():
    batches = []
    for x in (X, jnp.asarray(X, jnp.bfloat16), scipy.sparse.csr_array(X)):
        as_batch_function(lambda x: batches.append(x) or x, like(x))(read_examples(x).inputs[:2])
        assert type(batches[-1]) is type(x)
        assert batches[-1].dtype == x.dtype
    with pytest.raises(TypeError, match=r"apply: got dict .* give a callable of a batch"):
        as_batch_function({})
    with pytest.raises(TypeError, match=r"got sklearn\S*StandardScaler; .* predict_proba, dec"):
        as_batch_function(StandardScaler())


def test_estimators_of_scikit_learn():
    logistic = LogisticRegression(max_iter=3000).fit(scale(DIGITS), CLASSES)
    studies.assert_independent_of_batch(logistic, scale(DIGITS)[:16])
    loader = [(DIGITS[i : i + 8], CLASSES[i : i + 8]) for i in (0, 8)]
    studies.assert_independent_of_batch(logistic, loader)
    by_batch = make_pipeline(FunctionTransformer(scale), logistic)
    with pytest.raises(AssertionError, match=r"batch 0 of the loader: example \d depends on its"):
        studies.assert_independent_of_batch(by_batch, loader)
    studies.assert_independent_of_batch(KMeans(3, random_state=0).fit(DIGITS), DIGITS[:16])
    texts = ["the cat", "a dog", "no dog here", "a cat"] * 2
    of_texts = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, [0, 1] * 4)
    studies.assert_independent_of_batch(of_texts, texts)
    counts = of_texts[0].transform(texts)
    studies.assert_independent_of_batch(of_texts[1], counts)


def test_classifiers_give_a_column_for_each_class():
    two = Perceptron().fit(DIGITS, np.where(CLASSES == 3, "three", "other"))
    scores = as_batch_function(two)(DIGITS)
    assert scores.shape == (len(DIGITS), 2)
    np.testing.assert_array_equal(two.classes_[scores.argmax(axis=1)], two.predict(DIGITS))

    class Nearest:
        classes_ = np.array(["cat", "dog", "fox"])

        def predict(self, x):
            return self.classes_[x[:, :3].argmax(axis=1)]

    np.testing.assert_array_equal(
        as_batch_function(Nearest())(X[:, :3]).argmax(1), X[:, :3].argmax(1)
    )


def test_tables_of_pandas():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(DIGITS[:64, 20:24], columns=list("abcd"))
    table["b"] = table["b"].astype(int)
    table["name"] = np.where(CLASSES[:64] > 4, "large", "small")
    read = read_examples((table, table["name"]))
    assert read.labels.tolist() == table["name"].tolist()
    pandas.testing.assert_frame_equal(read.wrap(read.inputs), table)
    model = make_pipeline(
        FunctionTransformer(lambda table: table[["a", "b"]]), StandardScaler(), LogisticRegression()
    ).fit(table, CLASSES[:64] > 4)
    studies.assert_independent_of_batch(model, table)  # a warning, of missing names, would fail


class StandInTensor:
    """The part of PyTorch's tensors that `frameworks` uses, if PyTorch is missing."""

    def __init__(self, array, device="cpu"):
        self.array, self.device = np.array(array), device
        self.dtype = self.array.dtype

    def is_floating_point(self):
        return self.dtype.kind != "i"

    def element_size(self):
        return self.array.itemsize

    def detach(self):
        return self

    def clone(self):
        return StandInTensor(self.array, self.device)

    def copy_(self, other):
        self.array[...] = other.array

    def to(self, dtype):
        return StandInTensor(self.array.astype(dtype), self.device)

    def float(self):
        return self.to(np.float32)

    def numpy(self, *, force):
        assert force
        if self.dtype == jnp.bfloat16:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


class StandInNormalisation:
    """Batch normalisation of PyTorch in training mode, on an accelerator, in bfloat16."""

    training = True

    def __init__(self):
        self.weight = StandInTensor(np.ones(6, jnp.bfloat16), "gpu")
        self.mean = StandInTensor(np.zeros(6))
        self._buffers = {"mean": self.mean}

    def eval(self):
        pytest.fail("the mode is the caller's")

    def parameters(self):
        return iter([StandInTensor([1]), self.weight])

    def modules(self):
        return [self]

    def named_buffers(self, *, recurse):
        assert not recurse
        return self._buffers.items()

    def forward(self, x):
        assert (x.device, x.dtype) == ("gpu", jnp.bfloat16)
        self.mean.array += x.array.mean(axis=0)
        if len(x.array) == 1:
            raise ValueError("more than one, please")
        return {"logits": StandInTensor(x.array - x.array.mean(axis=0))}

    __call__ = forward


def test_a_module_gets_its_dtype_and_is_not_changed(monkeypatch):
    torch = types.SimpleNamespace(
        tensor=lambda x, device: StandInTensor(x, device),
        no_grad=contextlib.nullcontext,
        equal=lambda x, y: np.array_equal(x.array, y.array),
        random=types.SimpleNamespace(fork_rng=contextlib.nullcontext),
        manual_seed=lambda seed: None,
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    module = StandInNormalisation()
    apply = as_batch_function(module)
    low = X.astype(jnp.bfloat16)
    np.testing.assert_array_equal(apply(X), np.float32(low - low.mean(axis=0)))
    with pytest.raises(ValueError, match="more than one, please"):
        apply(X[:1])
    assert not module.mean.array.any()  # a failed call leaves no trace either
    with pytest.raises(AssertionError, match="depends on its batch"):
        studies.assert_independent_of_batch(module, X)


@pytest.mark.slow
def test_models_of_keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.Dense(3)]
    )
    studies.assert_independent_of_batch(model, X)
    studies.assert_independent_of_batch(model, keras.ops.convert_to_tensor(X))
    with pytest.raises(AssertionError, match="depends on its batch"):
        studies.assert_independent_of_batch(lambda x: model(x, training=True), X)


def test_data_sets_of_tensorflow():
    tensorflow = pytest.importorskip("tensorflow")
    data = tensorflow.data.Dataset.from_tensor_slices((X, LABELS))
    read = read_examples(data.batch(4))
    np.testing.assert_array_equal(read.inputs, X)
    assert read.labels.tolist() == LABELS.tolist()
    assert read.note is None
    assert "it shuffles" in read_examples(data.repeat(9).shuffle(81, seed=0).batch(4)).note
    normalise = tensorflow.nn.l2_normalize
    studies.assert_independent_of_batch(lambda x: normalise(x, 1), data.batch(4))
    with pytest.raises(AssertionError, match="batch 0 of the loader"):
        studies.assert_independent_of_batch(lambda x: normalise(x, 0), data.batch(4))


@pytest.mark.parametrize("named", [False, True])
def test_the_columns_of_an_estimator_match_its_labels(named):
    """It was fitted on classes from 1 on, or names; the test set lacks some of them."""
    labels = CLASSES + 1
    labels = np.array([f"digit {label:02}" for label in labels]) if named else labels
    model = LogisticRegression(max_iter=2000).fit(DIGITS[:60] / 16, labels[:60])
    rows = np.flatnonzero(np.isin(CLASSES, (0, 1, 2, 3, 5, 6)))
    examples = DIGITS[rows] / 16, labels[rows]
    score = 100 * model.score(*examples)
    for apply in (model, model.predict_proba):
        wanted = None if apply is model or not named else list(model.classes_)
        audit = studies.audit(apply, examples, class_names=wanted)
        assert audit.rows[0]["top1"] == pytest.approx(score)
    wrong = (DIGITS[rows], CLASSES[rows]), None  # from 0 on
    if named:
        wrong = examples, list(model.classes_)[::-1]
    with pytest.raises(ValueError, match=r"leave class_names out|was not fitted on it"):
        studies.audit(model, wrong[0], class_names=wrong[1])
