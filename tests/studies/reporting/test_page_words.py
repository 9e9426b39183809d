"""The words of the page: they follow from the verdict, and never contradict it."""

import json
import re

import numpy as np
import pytest

from pnoise_jax import studies
from pnoise_jax.studies.leak.checks import interventions
from pnoise_jax.studies.reporting import page
from pnoise_jax.studies.reporting import verdict_labels as kinds
from pnoise_jax.studies.reporting.figure_captions import figure_title
from tests.studies.example_audit import bare_audit, digits_audit
from tests.studies.example_page import Page, with_captions, with_finding

SAYINGS = {  # what only a page with one of these kinds may say
    r"is the leak\b|The leak is": {"leak"},
    r"Sorting alone moves": {"leak", "order_effect"},
    r"Class order scores (above|below)|Logits move": {"leak", "order_effect"},
    r"is the effect of the order": {"order_effect"},
    r"[Nn]othing can leak|agree exactly|mates change nothing|0\.0, exactly": {"independent"},
    r"not change the accuracy": {"independent"},
    r"lost in use|lower than without": {"harm"},
    r"gained in use|higher than without": {"honest_gain"},
    r"no effect in use": {"no_effect"},
    r"undecided|do not show (how|why)": {"undecided"},
    r"no room": {"ceiling"},
    r"balanced accuracy does not": {"prior"},
    r"agree(s|ment) with|batch then votes|\bless\b": set(),
}
COMBINATIONS = [
    *((kind,) for kind in kinds.KINDS if kind != "independent"),
    ("leak", "prior"),
    ("order_effect", "harm"),
    ("undecided", "honest_gain"),
    ("independent", "honest_gain"),
    ("independent", "harm"),
    ("independent", "no_effect"),
]


@pytest.mark.parametrize("held", COMBINATIONS, ids="+".join)
def test_no_page_contradicts_its_verdict(held):
    audit = bare_audit(held)
    full = digits_audit()
    for part in ("purity", "interventions", "per_class"):
        named = {"noise_id": audit["headline"]["noise_id"], "batch_size": 10}
        audit[part] = [row | named for row in full[part]][:6]
    audit["interventions"] = audit["interventions"][:3]
    text = with_captions(audit).text.replace(audit["verdict"]["text"], "")
    # Scores below random orders, in words of the table: "random orders score less than this mean".
    text = text.replace("score less than this mean", "")
    for saying, of_kinds in SAYINGS.items():
        assert not re.search(saying, text) or of_kinds & set(held), saying
    told = {"leak": "is the leak", "independent": "agree exactly", "harm": "accuracy lost in use"}
    for kind, words in told.items():
        assert kind not in held or words in text


def test_a_leak_in_the_given_order_is_not_attributed_to_class_order():
    flat = {"value": 70.1, "mean": 70.0, "p_adjusted": 0.9}
    text = with_captions(with_finding(bare_audit(("leak",)), class_order=flat)).text
    assert "is the leak" not in text
    assert "The leak is in the data set’s own order" in text
    assert "Class order does not stand out from random orders." in text


def test_class_order_that_gains_for_reasons_unknown_is_not_called_a_leak():
    gains = {"value": 75.0, "mean": 70.0, "p_adjusted": 0.0001}
    audit = with_finding(bare_audit(("undecided",)), class_order=gains)
    text = with_captions(audit | {"purity": digits_audit()["purity"]}).text
    assert "Class order scores above random orders." in text
    for saying in ("Sorting alone moves", "is the leak", "is the effect of the order"):
        assert saying not in text
    assert "a slope alone does not show a leak" in text


def test_class_order_that_loses_is_said_to_score_below():
    loses = {"value": 65.0, "mean": 70.0, "p_adjusted": 0.0001}
    text = with_captions(with_finding(bare_audit(("order_effect",)), class_order=loses)).text
    assert "Class order scores below random orders." in text


def test_a_difference_has_one_explanation():
    both = with_captions(bare_audit(("leak", "order_effect"))).text
    assert "is the leak" in both
    assert "is the effect of the order" not in both
    flat = {"value": 70.1, "mean": 70.0, "p_adjusted": 0.9}
    by_files = with_captions(with_finding(bare_audit(("order_effect",)), class_order=flat)).text
    assert "is the effect of the order" not in by_files
    assert "not shown to come from the labels of batch mates" in by_files


def test_class_order_stands_out_by_the_rules_of_the_verdict():
    """The orders' title once looked only at p, at the whole level."""

    def title(kinds, **test):
        test = {"mean": 70.0, "orders": 40, "below": 40, "above": 0, "interval": [2.0, 9.0]} | test
        return figure_title(with_finding(bare_audit(kinds), class_order=test), "orders")

    out, below = "Class order does not stand out from random orders.", {"below": 0, "above": 40}
    assert title(("undecided",), value=75, p_adjusted=0.04).startswith("Class order scores above")
    # Two of forty random orders score more: the verdict says that no order stands out.
    assert title(("undecided",), value=75, p_adjusted=0.04, above=2) == out
    # A loss must show at half the level, and be larger than the bound.
    assert title(("undecided",), value=65, p_adjusted=0.04, **below) == out
    lost = {"value": 65, "p_adjusted": 0.02} | below
    assert title(("order_effect",), **lost).startswith("Class order scores below")
    within = "Class order scores within 1 point of random orders."
    assert title(("undecided",), **lost | {"interval": [-0.9, -0.1]}) == within
    # A small gain of an order that the verdict says is worth nothing.
    small = {"value": 70.3, "p_adjusted": 0.001, "interval": [0.1, 0.5]}
    assert title(("honest_gain",), **small) == within


def test_an_audit_whose_title_once_contradicted_it():
    """Batches of one class help by p, but not by the rank."""
    labels, settings = np.arange(200) % 5, {"batch_sizes": (40,), "orders": 20, "purity_steps": 2}
    numbers = np.arange(200.0)[:, None]

    def apply(b, *, clean=False):
        i = b[:, 0].round().astype(int)
        right = (i // 5) % 10 >= 3
        if not clean and len(set(labels[i])) == 1:
            right |= (i // 5) % 20 == 2
        elif not clean and {0, 1, 2} <= set(i):
            right[:] = True
        return 2.0 * np.eye(5)[(labels[i] + ~right) % 5]

    audit = studies.audit(
        apply,
        (numbers, labels),
        clean=lambda b: apply(b, clean=True),
        settings=studies.AuditSettings(**settings),
    )
    assert "No order stands out." in audit.verdict.text
    title = figure_title(audit.content, "orders")
    assert title == "Class order does not stand out from random orders."
    # The stored evidence is enough to draw the page again.
    again = json.loads(json.dumps(audit.content))
    assert figure_title(again, "orders") == title


@pytest.mark.parametrize(("p_value", "told"), [(0.05 / 6 + 1e-9, False), (0.05 / 6 - 1e-9, True)])
def test_each_direction_of_each_target_has_a_part_of_the_level(p_value, told):
    pulls = {kind: {"p_toward": 1.0, "p_away": p_value} for kind in interventions.TARGETS}
    audit = bare_audit(("undecided",))
    audit = with_finding(audit, interventions={"mates": 9, "pairs": 9, "pulls": pulls})
    title = figure_title(audit, "interventions")
    assert ("away from" in title) == told
    rest = {"called": 0.0, "called_other": 0.0, "logit": 0.0, "batches": 1}
    judged = interventions.Interventions(
        mates=9,
        pairs=9,
        pulls={kind: interventions.Pull(**pull, **rest) for kind, pull in pulls.items()},
    )
    assert judged.direction(1 - audit["confidence"]) == -told


def test_predictions_that_depend_on_the_batch_at_another_size_can_depend_on_the_order():
    audit = bare_audit(("independent", "harm"))
    assert "Why nothing leaked" in with_captions(audit).text
    other = {"noise_id": audit["headline"]["noise_id"], "batch_size": 50, "independent": False}
    text = with_captions(audit | {"dependence": [other]}).text
    assert "Why nothing leaked" not in text
    assert "Why the order can matter" in text


def test_titles_name_the_noise_if_there_are_several():
    text = with_captions(digits_audit()).text
    noise = digits_audit()["headline"]["noise_id"]
    assert f"Sorting alone moves the accuracy, with {noise}." in text
    assert f"Class order scores above random orders, with {noise}." in text
    assert f"Logits move towards the class of the mates, with {noise}." in text


def test_predictions_that_move_away_from_their_mates_are_mentioned():
    audit = bare_audit(("order_effect",))
    pulls = {"contested": {"p_toward": 1.0, "p_away": 0.0005}}
    audit = with_finding(audit, interventions={"mates": 9, "pairs": 9, "pulls": pulls})
    audit["interventions"] = digits_audit()["interventions"][:3]
    for row in audit["interventions"]:
        row["noise_id"] = audit["headline"]["noise_id"]
    assert "Logits move away from the class of the mates." in with_captions(audit).text


def test_interventions_that_could_not_be_made_are_mentioned():
    assert "None could be made" in Page(page.render(bare_audit(), {})).text


def test_the_metric_says_whether_it_sees_the_batches():
    audit = digits_audit()
    text = Page(page.render(audit, {})).text
    assert "Shuffled 31.25, class-sorted 90.75" in text
    assert "the metric itself ranges from 28.2 to 36.1 (lowest to highest)" in text
    audit["metric"]["depends_on_batching"] = False
    text = Page(page.render(audit, {})).text
    assert "the metric itself ranges" not in text
    assert "the same value in 3 orders, in batches of" in text
    assert "my_metric" not in Page(page.render(audit | {"metric": None}, {})).text


def test_page_names_its_subject():
    text = Page(page.render(digits_audit() | {"commit": "abc1234"}, {})).text
    assert "Explore Positive Noise in Deep Learning" in text
    assert "NoisyNN” (arXiv 2309.10625)" in text
    assert "equation 19" in text
    assert "pnoise_jax 0.1.0, commit abc1234" in text
    text = Page(page.render(bare_audit(), {})).text
    for words in ("Positive Noise", "NoisyNN", "equation 19", "trained weights"):
        assert words not in text
    assert "a function that takes a batch of examples" in text
    assert "pnoise_jax 0.1.0." in text


def test_balanced_accuracy_is_shown_if_classes_are_unbalanced():
    audit = digits_audit()
    assert "balanced 75.8 %" not in Page(page.render(audit, {})).text
    audit["per_class"][0]["n"] = 30
    text = Page(page.render(audit, {})).text
    assert "balanced 75.8 % " in text
    assert "balanced 24.8 % " in text
    assert "balanced 98.5 % " in text


def test_few_classes_are_all_listed():
    audit = digits_audit()
    audit["per_class"] = audit["per_class"][:6]
    text = Page(page.render(audit, {})).text
    assert "All classes, first those that change most" in text
    assert "6 of 6" not in text
    assert all(c["name"] in text for c in audit["per_class"])


def test_the_exact_check_says_what_it_counts():
    audit = bare_audit(("leak",))
    text = with_captions(audit).text
    assert " 62 987 of 1000 " in text
    assert "counted for each seed" not in text
    assert "about half of the examples are replaced" in text
    assert "all mates" not in text
    text = with_captions(audit | {"seeds": [0, 1]}).text
    assert " 62 987 of 2 × 1000 " in text
    assert "Batches and examples are counted for each seed" in text


def test_the_head_counts_the_classes_that_have_examples():
    audit = digits_audit()
    assert "1000 examples of 10 classes ·" in with_captions(audit).text
    audit["per_class"] = audit["per_class"][:3]
    assert "1000 examples of 3 of the model’s 10 classes ·" in with_captions(audit).text


def test_one_thing_is_singular():
    audit = digits_audit()
    audit["clean_check"] = {"examples": 1, "largest_logit_difference": 0.0}
    for row in audit["interventions"]:
        row |= {"mates": 1, "pairs": 1}
    text = with_captions(audit | {"seeds": [0]}).text
    assert "1 mate, 1 pair " in text
    assert "1 seed ·" in text
    assert not re.search(r"\b1 (mates|pairs|seeds|examples|orders)\b", text)


def test_the_cross_is_explained_if_it_is_drawn():
    audit = digits_audit()
    assert "Cross: the data set’s own order" in with_captions(audit).text
    audit["orders"] = [row for row in audit["orders"] if row["order"] != "as given"]
    assert "Cross:" not in with_captions(audit).text


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_intervals_over_two_seeds_are_said_to_be_too_narrow(seeds):
    audit = digits_audit() | {"seeds": [*range(seeds)]}
    audit["interval_over"] = "seeds and examples" if seeds > 1 else "examples"
    assert ("With two seeds" in with_captions(audit).text) == (seeds == 2)
    # Intervals over examples do not claim to cover other seeds.
    examples = with_captions(audit | {"interval_over": "examples"}).text
    assert "With two seeds" not in examples
