"""Sentences for a question that the data do not resolve, and what would resolve it."""

from pnoise_jax.studies.leak.verdict.kinds import FEW_ERRORS, Evidence
from pnoise_jax.studies.reporting.tables import points, signed


def undecided(evidence: Evidence, level: float, equivalence: float) -> str:
    """Says why a verdict is undecided, and what would resolve it."""
    sentences = []
    order = evidence.class_order
    gains = order.sign(level) > 0
    if gains:
        sentences.append(
            f"With the files of each class permuted, class order is worth "
            f"{signed(order.difference)} points over a random one, and sorting by the model's own "
            f"clean predictions {signed(evidence.own_predictions.difference)}."
        )
    if not evidence.dependence.deterministic:
        sentences.append(
            "Calls with the same batch differ: the function is random, or it remembers earlier "
            "batches. Fix the random key, so that an example draws the same noise in any batch, or "
            "reset what it remembers, and audit again."
        )
    elif gains:
        sentences.append(_why_not_a_leak(evidence, level))
    elif not evidence.dependence.orders:
        sentences.append(
            "The layer of the noise is drawn for each batch, so an example's noise depends on its "
            "batch, whatever its mates. Audit each layer by itself."
        )
    else:
        sentences.append(_what_would_resolve(evidence, level, equivalence))
    return " ".join(sentences)


def _why_not_a_leak(evidence: Evidence, level: float) -> str:
    """Says why a gain in class order is not called a leak."""
    direction = evidence.follows_mates(level)
    if direction > 0:
        return (
            "The labels of batch mates move the logits, yet sorting by labels is not shown to "
            "score more than sorting by these predictions. More examples of each class would tell."
        )
    if direction < 0:
        return (
            "The interventions move the logits away from the class of the mates, which does not "
            "explain a gain in class order. More examples of each class would tell."
        )
    return _no_pull(evidence)


def _no_pull(evidence: Evidence) -> str:
    """Says that no intervention shows a pull, and what would."""
    if evidence.interventions is None:
        return f"The interventions could not be made: {evidence.no_interventions}."
    sentence = "No intervention shows that the labels of batch mates are read."
    mates = evidence.interventions.mates
    if mates + 1 < evidence.batch_size:
        sentence += (
            f" They used batches of {mates + 1}, not {evidence.batch_size}, since the classes are "
            "small."
        )
    return f"{sentence} More examples of each class would sharpen them."


def _what_would_resolve(evidence: Evidence, level: float, equivalence: float) -> str:
    """Says what to do if no order stands out, but none is shown to be harmless either."""
    tests = {
        "class order, with files permuted": evidence.class_order,
        "the order of files": evidence.file_order,
    }
    if evidence.given_order is not None:
        tests["the data set's own order"] = evidence.given_order
    name, widest = max(tests.items(), key=lambda item: max(map(abs, item[1].interval)))
    limit = max(map(abs, widest.interval))
    if limit >= equivalence:
        low, high = widest.interval
        more = evidence.n * (limit / equivalence) ** 2
        return (
            f"No order stands out. The least certain is {name}: {signed(widest.difference)} "
            f"points ({signed(low)} to {signed(high)}); resolving {points(equivalence)} would "
            f"take about {_round_up(more):,} examples like these."
        )
    if evidence.follows_mates(level):
        return (
            "The labels of batch mates move the logits, yet no order moves the accuracy by "
            f"{points(equivalence)} here: audit larger batches, or harder examples."
        )
    return _no_pull(evidence)


def _round_up(number: float) -> int:
    digits = max(0, len(str(int(number))) - 2)
    return -int(-number // 10**digits) * 10**digits


def ceiling(evidence: Evidence) -> str:
    """Says why a high clean accuracy hides what an order adds."""
    if evidence.clean_errors < FEW_ERRORS:
        return (
            f"The clean model gets fewer than {FEW_ERRORS} examples wrong, too few to tell what an "
            "order adds: audit harder or more examples."
        )
    return (
        f"The clean accuracy is {evidence.clean:.1f} %, so an order can add "
        f"{100 - evidence.clean:.1f} points at most: audit harder examples."
    )
