"""Pseudo labels for the target, and pairs of source and target images of the same class."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_BLOCK = 2**26  # similarities to compute at a time; 256 MB


def pseudo_labels(
    features: np.ndarray, probabilities: np.ndarray, *, more_rounds: int = 1
) -> np.ndarray:
    """Labels each example with the class whose centre is nearest by cosine similarity.

    The first centres are means of the features, weighted by the predicted probabilities. Each
    later round uses the means of the examples that the previous round assigned to each class. Only
    classes that are predicted for at least one example can become labels. This follows equations 4
    to 6 of SHOT (https://arxiv.org/abs/2002.08546).

    Args:
      features: (n, dim). A constant 1 is appended to each row, as in the published code.
      probabilities: (n, classes).
      more_rounds: number of rounds after the first.

    Returns:
      The labels, (n,) int32.
    """
    features = np.concatenate([features, np.ones_like(features[:, :1])], axis=1)
    features = normalise_rows(features)
    classes = np.unique(probabilities.argmax(axis=1))
    members = probabilities[:, classes]
    for _ in range(1 + more_rounds):
        centres = members.T @ features / (1e-8 + members.sum(axis=0)[:, None])
        similarity = features @ normalise_rows(centres).T
        similarity[:, members.sum(axis=0) == 0] = -np.inf  # a class without examples
        labels = similarity.argmax(axis=1)
        members = np.eye(len(classes), dtype=features.dtype)[labels]
    return classes[labels].astype(np.int32)


def nearest(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Returns for each query (n, dim) the row of the nearest key (m, dim) by cosine, (n,) int32."""
    block = max(1, min(len(queries), _BLOCK // len(keys)))
    return np.asarray(_nearest(normalise_rows(queries), normalise_rows(keys), block))


@functools.partial(jax.jit, static_argnums=2)
def _nearest(queries: jax.Array, keys: jax.Array, block: int) -> jax.Array:
    def nearest_to(query: jax.Array) -> jax.Array:
        similarity = jnp.matmul(keys, query, precision=jax.lax.Precision.HIGHEST)
        return similarity.argmax().astype(jnp.int32)

    return jax.lax.map(nearest_to, queries, batch_size=block)


def find_pairs(
    source: np.ndarray,
    target: np.ndarray,
    source_labels: np.ndarray,
    target_labels: np.ndarray,
    *,
    same_label: bool = True,
) -> np.ndarray:
    """Pairs each image with the nearest image of the other domain, by cosine similarity.

    Args:
      source, target: features, (n, dim) and (m, dim).
      source_labels: (n,).
      target_labels: (m,), pseudo labels.
      same_label: whether to keep only pairs whose labels agree, the centre-aware filter of CDTrans.

    Returns:
      (pairs, 2) int32, source and target indices: each pair once, in ascending order.
    """
    sources, targets = np.arange(len(source)), np.arange(len(target))
    from_target = np.stack([nearest(target, source), targets], axis=1)
    from_source = np.stack([sources, nearest(source, target)], axis=1)
    pairs = np.unique(np.concatenate([from_target, from_source]), axis=0)
    if same_label:
        pairs = pairs[source_labels[pairs[:, 0]] == target_labels[pairs[:, 1]]]
    return pairs.astype(np.int32)


def normalise_rows(x: np.ndarray) -> np.ndarray:
    """Scales the rows of x (n, dim) to length 1; rows of zeros stay zero."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
