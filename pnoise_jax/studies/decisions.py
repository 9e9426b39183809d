"""What the tests of an audit decide: the rules that its verdict and its page share.

They take the tests as in audit.json, so that a page drawn again from an older file follows the same
rules as its verdict.
"""

from collections.abc import Mapping
from typing import Any


def order_sign(test: Mapping[str, Any], level: float) -> int:
    """Returns 1 or -1 if an order is shown to score more or less than random orders, else 0.

    Both the p-value and the rank must show it: accuracies of few examples are far from normal.

    Args:
      test: the fields of an `OrderTest`; without those of the rank, the p-value decides.
      level: level of the test.
    """
    gains = test["value"] > test["mean"]
    beyond = test.get("above" if gains else "below", 0)
    if test["p_adjusted"] > level or beyond > level / 2 * test.get("orders", 0):
        return 0
    return int(gains) - int(test["value"] < test["mean"])


def is_within(test: Mapping[str, Any], bound: float) -> bool:
    """Returns whether the whole interval of an order's difference lies inside (-bound, bound).

    Args:
      test: the fields of an `OrderTest`; False without an interval.
      bound: in points.
    """
    if "interval" not in test:
        return False
    low, high = test["interval"]
    return -bound < low and high < bound


def class_order_sign(verdict: Mapping[str, Any], level: float, equivalence: float) -> int:
    """Returns 1 or -1 if class order stands out above or below random orders in a verdict, else 0.

    A loss counts as in `order_effects`: at half the level, unless it is smaller than the bound. A
    gain counts unless the verdict says that the order is worth nothing.

    Args:
      verdict: the verdict, as in audit.json.
      level: level of the tests.
      equivalence: points of top-1; an effect below it counts as none.
    """
    test, kinds = verdict["evidence"]["class_order"], set(verdict["kinds"])
    if "independent" in kinds:
        return 0
    if order_sign(test, level) > 0:
        return 0 if kinds.isdisjoint({"leak", "order_effect", "undecided"}) else 1
    is_loss = order_sign(test, level / 2) < 0 and not is_within(test, equivalence)
    return -1 if is_loss else 0


def pull_direction(pulls: Mapping[str, Mapping[str, Any]], level: float) -> int:
    """Returns 1 if predictions move towards their mates' class, -1 if away from it, else 0.

    The kinds of target are tested in their order; each kind and direction has an equal part of the
    level.

    Args:
      pulls: the fields of a `Pull` for each kind of target.
      level: level of all these tests.
    """
    for pull in pulls.values():
        for key, sign in (("p_toward", 1), ("p_away", -1)):
            if pull[key] <= level / (2 * len(pulls)):
                return sign
    return 0
