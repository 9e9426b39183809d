"""What an audit found, in plain sentences with their figures."""

import dataclasses

from pnoise_jax.evaluation import Estimate


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one noise does at one batch size.

    Attributes:
      leaks: whether class order beats the shuffled order: the interval lies above 0.
      honest: "gain", "harm" or "no effect" of the noise on the shuffled test set.
      sentence: both, with their figures.
    """

    leaks: bool
    honest: str
    sentence: str


def judge(
    *,
    name: str,
    mixes_batch: bool,
    batch_size: int,
    clean: float,
    shuffled: float,
    class_sorted: float,
    honest: Estimate,
    leak: Estimate,
) -> Finding:
    """The finding of one noise. An interval that includes 0 is said to be no proof of absence.

    Args:
      name: of the noise, in words.
      mixes_batch: whether it can leak at all.
      batch_size: of the protocol.
      clean, shuffled, class_sorted: top-1 in percent, mean over seeds.
      honest: noisy shuffled less clean, in points.
      leak: noisy class-sorted less noisy shuffled.
    """
    kind = {1: "gain", -1: "harm", 0: "no effect"}[honest.sign]
    leads = {
        1: f"{name} reads labels from the order of the test set",
        0: f"{name} shows no leak here",
        -1: f"{name} does worse on a class-sorted test set than on a shuffled one",
    }
    lead = leads[leak.sign] if mixes_batch else f"{name} mixes no examples, so nothing can leak"
    effects = {
        "gain": f"honestly used it gains {_points(honest)}",
        "harm": f"honestly used it costs {_points(honest)}",
        "no effect": f"honestly used it has no effect that shows ({_signed(honest)}: includes 0)",
    }
    orders = {
        1: f"the order alone is worth {_points(leak)}",
        0: f"the order makes no difference that shows ({_signed(leak)}: includes 0)",
        -1: f"the order costs {_points(leak)}",
    }
    sentence = (
        f"{lead[0].upper()}{lead[1:]}: in batches of {batch_size} the same weights score "
        f"{class_sorted:.1f} % in class order and {shuffled:.1f} % shuffled, against {clean:.1f} % "
        f"without noise; {effects[kind]}, and {orders[leak.sign]}."
    )
    return Finding(leaks=mixes_batch and leak.sign > 0, honest=kind, sentence=sentence)


def _points(estimate: Estimate) -> str:
    low, high = sorted(abs(bound) for bound in estimate.interval)
    return f"{abs(estimate.value):.1f} points ({low:.1f} to {high:.1f})"


def _signed(estimate: Estimate) -> str:
    low, high = estimate.interval
    return f"{estimate.value:+.1f} points, {low:+.1f} to {high:+.1f}"
