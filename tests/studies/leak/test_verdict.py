"""Functions whose truth is known get the verdicts that fit them, and no others."""

import dataclasses

import numpy as np
import pytest
from scipy import special

from launch.benchmark import verdict_cases, verdicts
from pnoise_jax import studies
from pnoise_jax.studies.leak import verdict
from pnoise_jax.studies.leak.checks.dependence import Dependence
from pnoise_jax.studies.leak.verdict import KINDS, judge, unresolved
from pnoise_jax.studies.leak.verdict.evidence import gather

CLASSES = 10
SETTINGS = studies.AuditSettings(batch_sizes=(10,), purity_steps=0, resamples=500)


def draw(per_class, noise, classes=CLASSES):
    labels = np.repeat(np.arange(classes), per_class)
    generator = np.random.default_rng(0)
    return np.eye(classes)[labels] + generator.normal(0, noise, (len(labels), classes)), labels


def mean_of_batch(b):
    return (b + b.sum(0)) / (len(b) + 1)


def neighbour(share):
    return lambda b: (1 - share) * b + share * np.roll(b, 1, 0)


def identity(b):
    return b


def worse(b):
    return b + 0.6 * np.sin(37 * b)


def batch_norm(b):
    return (b - b.mean(0)) / (b.std(0) + 1e-3)


def audited(apply, examples, clean=identity, settings=SETTINGS):
    return studies.audit(apply, examples, clean=clean, settings=settings).verdict


def test_the_mean_of_the_batch_leaks():
    result = audited(mean_of_batch, draw(50, 0.7))
    assert result.kinds == ("leak", "harm")
    assert "reads the labels of batch mates" in result.text
    pulls = result.evidence["interventions"]["pulls"]
    assert pulls["blank"]["called"] > 90
    assert pulls["blank"]["called_other"] < 5


def test_a_leak_on_few_examples_is_not_cleared():
    """120 images, mixed with half of the batch's mean. It was once called no leak."""
    result = audited(lambda b: 0.5 * b + 0.5 * b.mean(0), draw(12, 0.9))
    assert result.kind == "leak"


def test_an_honest_gain_does_not_hide_a_leak():
    result = audited(neighbour(0.1), draw(50, 0.7), clean=worse)
    assert result.kind == "leak"
    assert "honest_gain" in result.kinds


def test_a_perfect_classifier_is_not_cleared():
    result = audited(neighbour(0.4), draw(10, 1e-4))
    assert result.kind == "ceiling"
    assert "no room" in result.text


def test_a_perfect_classifier_whose_shuffled_accuracy_falls_leaks():
    assert audited(mean_of_batch, draw(20, 0.05)).kind == "leak"


def test_functions_of_single_examples_are_independent():
    same = audited(identity, draw(50, 0.7))
    assert same.kinds == ("independent", "no_effect")
    better = audited(identity, draw(50, 0.7), clean=worse)
    assert better.kinds == ("honest_gain", "independent")
    harmed = audited(worse, draw(100, 0.7))
    assert harmed.kinds == ("harm", "independent")
    for result in (same, better, harmed):
        assert "nothing leaked" in result.text
        assert result.evidence["dependence"]["independent"]


def test_noise_drawn_anew_each_time_cannot_be_checked():
    generator = np.random.default_rng(9)
    result = audited(lambda b: b + generator.normal(0, 0.5, b.shape), draw(50, 0.7))
    assert result.kind == "undecided"
    assert "Fix the random key" in result.text


def test_noise_drawn_anew_each_time_is_not_cleared_where_it_changes_little():
    generator = np.random.default_rng(9)
    found = audited(lambda b: b + generator.normal(0, 0.01, b.shape), draw(50, 0.5))
    assert found.kinds == ("undecided",)


@pytest.mark.parametrize("calls", [1, 30])
@pytest.mark.parametrize("clean", [identity, None])
def test_what_is_learnt_in_the_first_calls_is_not_cleared(calls, clean):
    """Later calls agree with each other, whatever their batch."""
    x, labels = draw(50, 0.5)
    x[:, 0] += 1.5
    bias, called = np.zeros(CLASSES), 0

    def calibrates(b):
        nonlocal bias, called
        logits = b - bias
        if called < calls:
            called += 1
            bias = bias + (b.mean(0) - bias) / called
        return logits

    found = audited(calibrates, (x, labels), clean=clean)
    assert found.kinds in (("undecided",), ("undecided", "harm"))
    assert not found.evidence["dependence"]["deterministic"]


@pytest.mark.parametrize("rate", [0.03, 0.01])
def test_what_a_function_gains_by_remembering_the_audit_is_not_called_honest(rate):
    """Prototypes follow the test examples; in one pass over these, they gain nothing."""
    x, labels = draw(100, 0.35)
    x += np.random.default_rng(3).normal(0, 0.5, (CLASSES, CLASSES))[labels]

    def classify(prototypes, b):
        return -np.square(b[:, None] - prototypes).sum(axis=2)

    learnt = np.eye(CLASSES)

    def adapts(b):
        logits = classify(learnt, b)
        for example, best in zip(b, logits.argmax(axis=1), strict=True):
            learnt[best] += rate * (example - learnt[best])
        return logits

    found = audited(adapts, (x, labels), clean=lambda b: classify(np.eye(CLASSES), b))
    assert found.evidence["honest"]["value"] > 10
    assert "undecided" in found.kinds
    assert "honest_gain" not in found.kinds
    assert "consecutive files share" not in found.text
    assert "it gains" not in found.text


def test_a_gain_from_class_frequencies_is_named():
    result = audited(mean_of_batch, draw(np.array([910] + [10] * 9), 0.7))
    assert result.kinds == ("leak", "prior")
    assert result.evidence["honest"]["value"] > 30
    assert result.evidence["honest_balanced"]["value"] < 0
    assert "balanced accuracy by" in result.text


def test_training_mode_batch_norm_is_an_order_effect():
    result = studies.audit(
        batch_norm, draw(50, 0.7), clean=identity, settings=SETTINGS, model="the network"
    )
    assert result.verdict.kind == "order_effect"
    assert "leak" not in result.verdict.kinds
    assert "noise" not in result.verdict.text.replace("the noise", "noise")


@pytest.fixture(scope="module")
def writers():
    """Ten writers with biases that a noisy reading reveals; consecutive files share a writer."""
    per_class = 100
    labels = np.repeat(np.arange(CLASSES), per_class)
    writer = np.tile(np.repeat(np.arange(10), 10), CLASSES)
    signal = np.eye(CLASSES)[labels] + np.random.default_rng(4).normal(0, 0.3, (1000, CLASSES))
    bias = np.random.default_rng(6).normal(0, 2.0, 10)[writer]
    reading = bias + np.random.default_rng(7).normal(0, 2.0, 1000)
    slope = np.linspace(-1, 1, CLASSES)
    inputs = np.column_stack([signal + np.outer(bias, slope), reading])

    def pooled(b):
        return b[:, :-1] - b[:, -1].mean() * slope

    def by_example(b):
        return b[:, :-1] - np.outer(b[:, -1], slope)

    return inputs, labels, pooled, by_example


def test_a_nuisance_shared_by_consecutive_files_is_not_a_leak(writers):
    inputs, labels, pooled, by_example = writers
    result = audited(pooled, (inputs, labels), clean=by_example)
    assert result.kind == "order_effect"
    assert "leak" not in result.kinds
    assert "order of the files within each class" in result.text
    assert result.evidence["file_order"]["value"] - result.evidence["file_order"]["mean"] > 10


def test_the_same_nuisance_in_files_at_random_is_no_effect_of_order(writers):
    inputs, labels, pooled, by_example = writers
    order = np.random.default_rng(11).permutation(len(labels))
    result = audited(pooled, (inputs[order], labels[order]), clean=by_example)
    assert not {"leak", "order_effect"} & set(result.kinds)


def test_an_order_of_balanced_batches_scores_above_random_orders():
    """Batch norm in training mode gains if each batch has every class once (few-shot)."""
    x, labels = draw(100, 1.0)
    order = np.arange(1000).reshape(CLASSES, 100).T.ravel()  # one of each class, again and again
    shift = np.random.default_rng(2).normal(0, 2.0, (100, 1)).repeat(CLASSES, 0)
    result = audited(
        lambda b: b - 0.9 * b.mean(0), (x[order] + shift, labels[order]), clean=identity
    )
    assert result.evidence["given_order"]["value"] > result.evidence["given_order"]["mean"]


@pytest.mark.parametrize("seed", [2, 3])  # chance gives mates a label less often
def test_a_nuisance_in_the_given_order_is_no_leak(seed):
    """Logits move away from the class of the mates, but the given order has mates at random."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(400) % CLASSES)
    tint = generator.normal(0, 1, (40, CLASSES)).repeat(10, axis=0)  # ten files share a scanner
    x = np.eye(CLASSES)[labels] + generator.normal(0, 0.45, (400, CLASSES)) + tint
    found = audited(lambda b: b - b.mean(0), (x, labels), clean=identity)
    assert found.kind == "order_effect"
    assert found.evidence["given_purity"] == 0


@pytest.mark.parametrize("clean", [identity, None])
def test_a_result_that_depends_on_the_batch_size_is_not_independent(clean):
    def apply(b):
        return b + np.log(len(b)) * np.linspace(0, 0.5, CLASSES)

    settings = dataclasses.replace(SETTINGS, batch_sizes=(10, 20) if clean else (10,))
    result = audited(apply, draw(50, 0.7), clean=clean, settings=settings)
    assert "independent" not in result.kinds
    words = "depend on how many examples a batch has" if clean else "when it is alone"
    assert words in result.text


def test_logits_that_change_without_any_prediction_have_no_effect():
    x, labels = draw(100, 0.5)
    result = audited(lambda b: b / b.std(), (x, labels))
    assert result.kinds == ("no_effect",)


def test_a_last_partial_batch_that_leaks_is_not_independent():
    x, labels = draw(75, 0.7, classes=4)

    def apply(b):
        mean = b.mean(0)
        pure = 1 < len(b) < 50 and np.ptp(np.sort(mean)[-2:]) > 0.5
        return 0.1 * b + 3 * mean if pure else b

    settings = dataclasses.replace(SETTINGS, batch_sizes=(50,))
    result = audited(apply, (x[:299], labels[:299]), settings=settings)
    assert "independent" not in result.kinds


@pytest.mark.parametrize("shift", [lambda z: 1e9 + z, lambda z: 1 + 1e-9 * z, lambda z: 1e-7 * z])
def test_leaks_are_found_in_logits_of_any_scale(shift):
    result = audited(lambda b: shift(neighbour(0.3)(b)), draw(50, 0.7), clean=lambda b: shift(b))
    assert result.kind == "leak"


def test_a_function_that_remembers_earlier_batches_is_not_cleared():
    memory = [np.zeros(CLASSES)]

    def apply(b):
        logits = b + 0.5 * memory[0]
        memory[0] = b.mean(0)
        return logits

    result = audited(apply, draw(50, 0.7))
    assert result.kind in ("undecided", "leak")
    assert "independent" not in result.kinds


def test_interventions_without_power_clear_nothing():
    labels = np.repeat([0, 1], [2996, 4])
    x = np.eye(2)[labels] + np.random.default_rng(3).normal(0, 0.7, (3000, 2))
    settings = dataclasses.replace(SETTINGS, batch_sizes=(4,))
    result = audited(lambda b: b + 0.5 * (b.mean(0) - [1, 0]), (x, labels), worse, settings)
    assert result.kind not in ("independent", "no_effect", "honest_gain")


def test_attention_over_the_batch_leaks():
    def apply(b):
        return special.softmax(2 * b @ b.T, axis=1) @ b

    assert audited(apply, draw(50, 0.7)).kind == "leak"


def test_all_batch_sizes_count():
    """A function that mixes large batches only is not independent because small ones are."""

    def apply(b):
        return mean_of_batch(b) if len(b) > 15 else b

    settings = dataclasses.replace(SETTINGS, batch_sizes=(10, 20))
    result = audited(apply, draw(50, 0.7), settings=settings)
    assert result.kind == "leak"
    assert result.batch_size == 20
    assert "in batches of 20" in result.text


def test_the_verdict_is_an_object_with_a_text():
    result = audited(mean_of_batch, draw(20, 0.7))
    assert str(result) == result.text
    assert result.kind == result.kinds[0]
    assert result.to_dict().keys() == {"kind", "kinds", "text", "batch_size", "evidence"}
    assert list(result.kinds) == [kind for kind in KINDS if kind in result.kinds]


@pytest.fixture(scope="module")
def evidence():
    """The evidence of a leak, to be changed piece by piece."""
    settings = SETTINGS.for_labels(draw(50, 0.7)[1], "")
    measured = studies.audit(
        mean_of_batch, draw(50, 0.7), clean=identity, settings=settings
    ).measured
    (gathered,) = gather(measured, settings).values()
    return gathered


def judged(evidence):
    return judge(evidence, level=0.05, equivalence=1.0)


def test_a_leak_needs_every_piece_of_evidence(evidence):
    assert judged(evidence) == ("leak", "harm")
    no_interventions = dataclasses.replace(evidence, interventions=None)
    assert judged(no_interventions) == ("undecided", "harm")
    own = dataclasses.replace(evidence.own_predictions, value=evidence.class_order.value)
    explained = dataclasses.replace(evidence, own_predictions=own, p_labels=0.5)
    assert judged(explained) == ("order_effect", "harm")
    like_random = dataclasses.replace(evidence.class_order, p_adjusted=0.2)
    assert judged(dataclasses.replace(evidence, class_order=like_random)) == ("undecided", "harm")


def test_a_gain_that_is_not_called_a_leak_says_why(evidence):
    """It must not deny a pull that the interventions show."""
    own = dataclasses.replace(evidence.own_predictions, p_adjusted=0.5)
    unclear = dataclasses.replace(evidence, own_predictions=own, p_labels=0.5)
    assert unclear.follows_mates(0.05) == 1
    assert judged(unclear)[0] == "undecided"
    text = unresolved.undecided(unclear, 0.05, 1.0)
    assert "labels of batch mates move the logits" in text
    assert "sorting by labels is not shown to score more" in text

    pulls = evidence.interventions.pulls
    away = {
        k: dataclasses.replace(p, p_toward=p.p_away, p_away=p.p_toward) for k, p in pulls.items()
    }
    against = dataclasses.replace(evidence.interventions, pulls=away)
    text = unresolved.undecided(dataclasses.replace(unclear, interventions=against), 0.05, 1.0)
    assert "away from the class of the mates" in text
    assert "No intervention" not in text

    none = {k: dataclasses.replace(p, p_toward=1.0, p_away=1.0) for k, p in pulls.items()}
    unseen = dataclasses.replace(evidence.interventions, pulls=none)
    text = unresolved.undecided(dataclasses.replace(unclear, interventions=unseen), 0.05, 1.0)
    assert "No intervention shows that the labels of batch mates are read." in text


@pytest.mark.parametrize("errors", [1.0, 5.5])  # means over seeds
def test_few_errors_are_named_without_rounding(evidence, errors):
    text = unresolved.ceiling(dataclasses.replace(evidence, clean_errors=errors))
    assert "gets fewer than 6 examples wrong" in text


def test_nothing_that_depends_on_the_batch_is_cleared_without_a_bound(evidence):
    order = dataclasses.replace(evidence.class_order, p_adjusted=0.2, interval=(-0.5, 2.0))
    open_question = dataclasses.replace(evidence, class_order=order)
    assert verdict.judge(open_question, level=0.05, equivalence=1.0)[0] == "undecided"
    changed = Dependence(True, 1.0, 1e-6, 6, 500, 60, 12, True)
    assert not changed.independent
    assert not dataclasses.replace(changed, largest_change=0.0).independent
    assert not Dependence(True, 0.0, 1e-6, 0).independent  # nothing was tried


@pytest.mark.parametrize("number", range(len(verdict_cases.CASES)))
def test_simulated_audits_do_not_err(number):
    """A small version of `launch.benchmark verdicts`, which measures the rates."""
    case = verdict_cases.CASES[number]
    outcomes = verdicts.simulate(6, seed=number, cases=[number])[number]
    rates = verdicts.rates(case, outcomes)
    assert rates["false_all_clear"]["events"] == 0
    assert rates["false_accusation"]["events"] <= 1
    if not case.depends:
        assert all("independent" in outcome.kinds for outcome in outcomes)
    else:
        assert all("independent" not in outcome.kinds for outcome in outcomes)
