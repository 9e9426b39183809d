"""Functions of a batch for which the right verdict of an audit is known.

Examples are class prototypes with Gaussian noise; some also have nuisances, which do not depend on
the class. A case draws its examples and returns two functions, the audited one and the clean one.
The right verdict is the same for all draws.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import special

Function = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the examples of a case are drawn.

    Attributes:
      n: approximate number of examples.
      classes: number of classes.
      batch_size: the batch size of the audit.
      noise: standard deviation of the noise on the prototypes, which have norm 1.
      imbalance: 0 if all classes have the same size; otherwise the share of the largest class.
      seed: the seed of the draw.
    """

    n: int
    classes: int
    batch_size: int
    noise: float
    imbalance: float
    seed: int


@dataclasses.dataclass(frozen=True)
class Case:
    """A kind of function with a known truth.

    Attributes:
      name: a description for the reader.
      draw: maps a setting to inputs (n, features), labels (n,), the audited function and the clean
        one.
      leaks: whether accuracy is higher in class order because the function reads the labels of
        batch mates.
      order: whether the order of the files itself matters.
      depends: whether predictions depend on the batch.
    """

    name: str
    draw: Callable[[Setting], tuple[np.ndarray, np.ndarray, Function, Function]]
    leaks: bool
    order: bool
    depends: bool


def draw_labels(setting: Setting, generator: np.random.Generator) -> np.ndarray:
    """Labels (n,) in random order, at least two of each class."""
    shares = np.full(setting.classes, 1 / setting.classes)
    if setting.imbalance:
        shares = np.full(setting.classes, (1 - setting.imbalance) / (setting.classes - 1))
        shares[0] = setting.imbalance
    counts = np.maximum(2, np.round(shares * setting.n).astype(int))
    return generator.permutation(np.repeat(np.arange(setting.classes), counts))


def prototypes(setting: Setting) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Inputs (n, classes), labels (n,), and a generator for anything else that a case draws."""
    generator = np.random.default_rng(setting.seed)
    labels = draw_labels(setting, generator)
    x = np.eye(setting.classes)[labels]
    return x + generator.normal(0, setting.noise, x.shape), labels, generator


def identity(x: np.ndarray) -> np.ndarray:
    return x


def _mixing(strength: float, mix: Function) -> Callable:
    """A case in which a part of each output is a mixture of the batch's outputs."""

    def draw(setting: Setting):
        x, labels, _ = prototypes(setting)
        return x, labels, lambda b: (1 - strength) * b + strength * mix(b), identity

    return draw


def _neighbour(b: np.ndarray) -> np.ndarray:
    return np.roll(b, 1, axis=0)


def _mean(b: np.ndarray) -> np.ndarray:
    return np.broadcast_to(b.mean(axis=0), b.shape)


def _attention(b: np.ndarray) -> np.ndarray:
    """Attention over the batch, as after a wrong reshape."""
    return special.softmax(2 * b @ b.T, axis=1) @ b


def _with_gain(setting: Setting):
    """More accurate than the clean function, and a tenth of a neighbour mixed in."""
    x, labels, _ = prototypes(setting)
    return x, labels, lambda b: 0.9 * b + 0.1 * _neighbour(b), lambda b: b + 0.6 * np.sin(37 * b)


def _in_log_prior(setting: Setting):
    """The mean prediction of the batch as a prior: in random order, the class frequencies."""
    x, labels, _ = prototypes(setting)

    def apply(b):
        return 3 * b + np.log(special.softmax(3 * b, axis=1).mean(axis=0))

    return x, labels, apply, lambda b: 3 * b


def _by_itself(change: Function) -> Callable:
    def draw(setting: Setting):
        x, labels, _ = prototypes(setting)
        return x, labels, change, identity

    return draw


def _better_by_itself(setting: Setting):
    x, labels, _ = prototypes(setting)
    return x, labels, identity, lambda b: b + 0.6 * np.sin(37 * b)


def _batch_temperature(setting: Setting):
    """Logits divided by their standard deviation over the batch: only the confidence changes."""
    x, labels, _ = prototypes(setting)
    return x, labels, lambda b: b / (b.std() + 1e-3), identity


def _nuisance(runs: bool, pooled: bool) -> Callable:
    """A case with a bias on the logits, which a noisy sensor measures and the function subtracts.

    Args:
      runs: whether consecutive files share the bias, like the files of one writer or camera.
      pooled: whether the readings of the sensor are averaged over the batch.
    """

    def draw(setting: Setting):
        x, labels, generator = prototypes(setting)
        within = np.empty(len(labels), int)  # the index of each file within its class
        for c in range(setting.classes):
            members = np.flatnonzero(labels == c)
            within[members] = np.arange(len(members))
        if runs:  # all classes have the same writers or cameras
            bias = generator.normal(0, 2, len(labels))[within // setting.batch_size]
        else:
            bias = generator.normal(0, 2, len(labels))
        reading = bias + generator.normal(0, 2, len(labels))
        slope = np.linspace(-1, 1, setting.classes)
        inputs = np.column_stack([x + np.outer(bias, slope), reading])

        def alone(b):
            return b[:, :-1] - np.outer(b[:, -1], slope)

        def together(b):
            return b[:, :-1] - b[:, -1].mean() * slope

        return inputs, labels, together if pooled else alone, alone

    return draw


def _masked(setting: Setting):
    """A neighbour mixed in, and a class that a mask excludes."""
    x, labels, _ = prototypes(setting)

    def mask(b):
        return np.column_stack([b, np.full(len(b), -1e9)])

    return x, labels, lambda b: mask(0.7 * b + 0.3 * _neighbour(b)), mask


def _batch_norm(setting: Setting):
    """Logits standardised over the batch, as in training mode; the clean ones over all examples."""
    x, labels, _ = prototypes(setting)
    mean, std = x.mean(axis=0), x.std(axis=0)

    def apply(b):
        return (b - b.mean(axis=0)) / (b.std(axis=0) + 1e-2)

    return x, labels, apply, lambda b: (b - mean) / std


CASES = (
    Case("mean of the batch (optimal Q)", _mixing(0.9, _mean), True, False, True),
    Case("half the mean of the batch", _mixing(0.5, _mean), True, False, True),
    Case("0.3 of a neighbour (cyclic shift)", _mixing(0.3, _neighbour), True, False, True),
    Case("0.1 of a neighbour", _mixing(0.1, _neighbour), True, False, True),
    Case("0.3 of a neighbour, behind a mask", _masked, True, False, True),
    Case("attention over the batch", _mixing(0.5, _attention), True, False, True),
    Case("a gain of its own, and 0.1 of a neighbour", _with_gain, True, False, True),
    Case("class frequencies of the batch as a prior", _in_log_prior, True, False, True),
    Case("the clean function", _by_itself(identity), False, False, False),
    Case("a gain of its own", _better_by_itself, False, False, False),
    Case("a harm of its own", _by_itself(lambda b: b + 0.6 * np.sin(37 * b)), False, False, False),
    Case("temperature by the batch", _batch_temperature, False, False, True),
    Case("nuisance pooled, files in random order", _nuisance(False, True), False, False, True),
    Case("nuisance pooled, shared by consecutive files", _nuisance(True, True), False, True, True),
    Case("batch norm in training mode", _batch_norm, False, True, True),
)


def draw_setting(generator: np.random.Generator, n: int | None = None) -> Setting:
    """A random setting: number of examples and classes, batch size, difficulty and balance."""
    n = int(generator.choice([60, 120, 300, 1000])) if n is None else n
    classes = int(generator.choice([count for count in (2, 3, 10, 20) if 5 * count <= n]))
    batch_sizes = [size for size in (2, 4, 10, 20) if size <= n // max(classes, 5)]
    return Setting(
        n=n,
        classes=classes,
        batch_size=int(generator.choice(batch_sizes)),
        noise=float(generator.uniform(0.3, 1.2)),
        imbalance=float(generator.choice([0, 0, 0.6])) if classes > 2 else 0.0,
        seed=int(generator.integers(2**31)),
    )
