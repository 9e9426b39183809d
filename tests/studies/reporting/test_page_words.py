"""The words of the page: they follow from the verdict, and never contradict it."""

import re

import pytest

from pnoise_jax.studies.reporting import page
from pnoise_jax.studies.reporting import verdict_labels as kinds
from tests.studies.example_audit import bare_audit, digits_audit
from tests.studies.example_page import Page, with_captions, with_finding

SAYINGS = {  # what only a page with one of some kinds may say
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


def test_a_leak_in_the_order_as_given_is_not_said_of_class_order():
    flat = {"value": 70.1, "mean": 70.0, "p_adjusted": 0.9}
    text = with_captions(with_finding(bare_audit(("leak",)), class_order=flat)).text
    assert "is the leak" not in text
    assert "The leak is in the data set’s own order" in text
    assert "Class order is not distinguishable" in text


def test_class_order_that_gains_for_reasons_unknown_is_not_called_a_leak():
    gains = {"value": 75.0, "mean": 70.0, "p_adjusted": 0.0001}
    audit = with_finding(bare_audit(("undecided",)), class_order=gains)
    text = with_captions(audit | {"purity": digits_audit()["purity"]}).text
    assert "Class order scores above random orders." in text
    for saying in ("Sorting alone moves", "is the leak", "is the effect of the order"):
        assert saying not in text
    assert "a slope alone does not show a leak" in text


def test_class_order_that_loses_is_below():
    loses = {"value": 65.0, "mean": 70.0, "p_adjusted": 0.0001}
    text = with_captions(with_finding(bare_audit(("order_effect",)), class_order=loses)).text
    assert "Class order scores below random orders." in text


def test_a_distance_is_said_to_be_one_thing():
    both = with_captions(bare_audit(("leak", "order_effect"))).text
    assert "is the leak" in both
    assert "is the effect of the order" not in both
    flat = {"value": 70.1, "mean": 70.0, "p_adjusted": 0.9}
    by_files = with_captions(with_finding(bare_audit(("order_effect",)), class_order=flat)).text
    assert "is the effect of the order" not in by_files
    assert "something other than the labels of batch mates" in by_files


def test_titles_name_the_noise_where_there_are_several():
    text = with_captions(digits_audit()).text
    noise = digits_audit()["headline"]["noise_id"]
    assert f"Sorting alone moves the accuracy, with {noise}." in text
    assert f"Class order scores above random orders, with {noise}." in text
    assert f"Logits move towards the class of the mates, with {noise}." in text


def test_predictions_that_move_away_from_their_mates_are_told():
    audit = bare_audit(("order_effect",))
    pulls = {"contested": {"p_toward": 1.0, "p_away": 0.0005}}
    audit = with_finding(audit, interventions={"mates": 9, "pairs": 9, "pulls": pulls})
    audit["interventions"] = digits_audit()["interventions"][:3]
    for row in audit["interventions"]:
        row["noise_id"] = audit["headline"]["noise_id"]
    assert "Logits move away from the class of the mates." in with_captions(audit).text


def test_interventions_that_could_not_be_made_are_told():
    assert "None could be made" in Page(page.render(bare_audit(), {})).text


def test_the_metric_says_whether_it_sees_the_batches():
    audit = digits_audit()
    text = Page(page.render(audit, {})).text
    assert "Shuffled 31.25, class-sorted 90.75" in text
    assert "the metric itself ranges from 28.2 to 36.1 (lowest to highest)" in text
    audit["metric"]["depends_on_batching"] = False
    text = Page(page.render(audit, {})).text
    assert "the metric itself ranges" not in text
    assert "the same value however the examples are batched" in text
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


def test_balanced_accuracy_stands_beside_top1_where_classes_are_unbalanced():
    audit = digits_audit()
    assert "balanced 75.8 %" not in Page(page.render(audit, {})).text
    audit["per_class"][0]["n"] = 30
    text = Page(page.render(audit, {})).text
    assert "balanced 75.8 % " in text
    assert "balanced 24.8 % " in text
    assert "balanced 98.5 % " in text


def test_few_classes_are_all_there():
    audit = digits_audit()
    audit["per_class"] = audit["per_class"][:6]
    text = Page(page.render(audit, {})).text
    assert "All classes, first those that change most" in text
    assert "6 of 6" not in text
    assert all(c["name"] in text for c in audit["per_class"])
