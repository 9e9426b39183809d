"""The pairs of a period, as stored in the state of a run, and a message about them."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np


def empty_pairs(source_size: int, target_size: int) -> dict[str, jnp.ndarray]:
    """Returns empty arrays for the largest possible number of source and target pairs."""
    room = source_size + target_size
    return {
        "source": jnp.zeros(room, jnp.int32),
        "target": jnp.zeros(room, jnp.int32),
        "pseudo_label": jnp.zeros(target_size, jnp.int32),
        "count": jnp.int32(0),
        "classes": jnp.int32(0),
    }


def fill_pairs(
    empty: Mapping[str, jnp.ndarray], pairs: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray | np.generic]:
    """Returns the arrays of `empty_pairs`, filled with pairs (n, 2) and labels (target images,)."""
    padded = np.zeros((len(empty["source"]), 2), np.int32)
    padded[: len(pairs)] = pairs
    return {
        "source": padded[:, 0],
        "target": padded[:, 1],
        "pseudo_label": labels.astype(np.int32),
        "count": np.int32(len(pairs)),
        "classes": np.int32(len(np.unique(labels))),
    }


def describe_pairs(
    pairs: np.ndarray, labels: np.ndarray, *, step: int, class_names: Sequence[str]
) -> list[str]:
    """Describes new pairs, with a warning if the pseudo labels have collapsed.

    Args:
      pairs: source and target indices, (n, 2).
      labels: pseudo labels, (target images,).
      step: the step at which the pairs were computed.
      class_names: the names of all classes.
    """
    classes, counts = np.unique(labels, return_counts=True)
    sentences = [
        f"step {step}: {len(pairs)} pairs, with {len(np.unique(pairs[:, 1]))} of {len(labels)} "
        f"target images; the pseudo labels cover {len(classes)} of {len(class_names)} classes, "
        f"the largest with {100 * counts.max() / counts.sum():.0f} % of the images"
    ]
    if len(classes) == 1 and len(class_names) > 1:
        sentences.append(
            f"warning: at step {step} the pseudo labels have collapsed: every target image is of "
            f"class {class_names[classes[0]]!r}. Raise task.source_duration, or lower "
            "optimizer.learning_rate"
        )
    return sentences
