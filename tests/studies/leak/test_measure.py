"""What an audit computes of the logits of whole batches."""

import numpy as np
import pytest

from pnoise_jax.studies.leak.measure import vote


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_batch_votes_for_the_class_with_the_largest_mean_logit(count):
    generator = np.random.default_rng(count)
    logits = generator.normal(size=(40, 5)).astype(np.float32)
    batches = generator.permutation(np.arange(40) % count)  # of one size or nearly so, mixed up
    votes = vote(logits, batches)
    assert votes.dtype == np.int32
    for example, batch in enumerate(batches):
        mean = logits[batches == batch].astype(np.float64).mean(axis=0)
        assert votes[example] == mean.argmax()
