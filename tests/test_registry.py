"""Suggestions of names that are similar to an unknown one."""

import pytest

from pnoise_jax.registry import Registry, did_you_mean, similar

NAMES = ("gaussian", "erase", "linear_transform")


@pytest.mark.parametrize(
    ("name", "options", "hint"),
    [
        ("gausian", {}, "; did you mean 'gaussian'? Choose one of: gaussian, erase, linear_tra"),
        ("gausian", {"list_always": False}, "; did you mean 'gaussian'?"),
        ("x", {"list_always": False}, ". Choose one of: gaussian, erase, linear_transform"),
        ("x", {"listed": 2}, ". Choose one of: gaussian, erase, …"),
        (None, {}, ". Choose one of: "),
    ],
)
def test_a_hint_suggests_a_similar_name_and_lists_the_others(name, options, hint):
    text = did_you_mean(name, iter(NAMES), **options)
    assert text.startswith(hint)
    assert options.get("list_always", True) or text == hint


def test_similar_names_come_nearest_first():
    assert similar("block_11", ["block_2", "block_12", "head"], count=2) == ["block_12", "block_2"]
    assert similar("block_11", ["block_2", "block_12", "head"], count=1) == ["block_12"]
    assert similar("block_11", ["head"]) == []


def test_a_name_that_is_imported_when_it_is_looked_up_is_known():
    registry = Registry("number")
    registry.register_lazily("pi", "math:pi")
    assert registry.knows("pi")
    assert not registry.knows("e")
