"""Labels that follow the noise, and Manifold Mixup, in sweeps and in steps of micro-batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

from pnoise_jax import noise, studies, training
from pnoise_jax.training import RandomStreams
from pnoise_jax.training.step.mixup import Mixing
from tests.training.runs import small_config
from tests.training.step.test_noise_labels import BATCH, FOLLOW, batch, context, injected, matrix


def test_a_sweep_evaluates_the_twin(data_dir, tmp_path):
    """Each row equals what an evaluation of its run gives."""
    base = small_config(data_dir, **FOLLOW, duration="20 steps", log_every="20 steps")
    base.evaluation.batch_size, base.optimizer.learning_rate = 16, 0.03
    base.optimizer.warmup = "2 steps"
    cells = [
        {"noise.strength": 0.3, "mixup.labels_follow_noise": follows, "seed": 0}
        for follows in (True, False)
    ]
    groups = studies.run_sweep(base, cells, tmp_path / "sweep", together="never")
    rows = [row for group in groups for row in group.rows.values()]
    for row in rows:
        protocols = training.evaluate(None, tmp_path / "sweep" / row["run"])
        for name, expected in zip(("clean", "shuffled", "class_sorted"), protocols, strict=True):
            assert float(row[f"{name}_top1"]) == expected["top1"]
            assert float(row[f"{name}_nll"]) == pytest.approx(expected["nll"], rel=1e-4)
    twin, noisy = (float(row["clean_nll"]) for row in rows)
    assert abs(twin - noisy) > 1e-3  # trained with other targets
    assert len({rows[0][f"{name}_nll"] for name in ("clean", "shuffled", "class_sorted")}) == 3


def matrix_by_hand(config, key, number):
    """I + Q of a micro-batch, from the noise's shift or from mixup with a drawn share."""
    if config.mixup.labels_follow_noise:
        size = config.noise.group_size or 8
        return matrix(noise.CyclicShift(0.3), size, 8 // size)
    streams = RandomStreams(jax.random.fold_in(jax.random.fold_in(key, 0), number))
    share = float(Mixing(alpha=0.5, layer=1).draw_share(streams["mixup"]))
    assert 0 < share < 1
    return share * np.eye(8) + (1 - share) * np.roll(np.eye(8), 2, axis=0)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [FOLLOW, FOLLOW | {"noise.group_size": 4}, {"mixup.layer": 1, "mixup.alpha": 0.5}],
)
def test_each_micro_batch_is_mixed_by_its_own_matrix(changes, data_dir):
    """By hand the images are mixed: before the first layer, the patch embedding is affine."""
    config = small_config(data_dir, **{"noise.preset": None} | changes, accumulate=2)
    config.evaluation.batch_size = 8
    experiment = training.build(config)
    task, key = experiment.task, jax.random.key(7)
    images, targets = training.Classification(model=injected()).inputs(batch(), context())
    plain = training.Classification(model=experiment.model.clone(injection=None))
    variables = plain.model.init(jax.random.key(0), images)
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(key, x.shape), variables["params"])

    def loss(images, targets, of_images, of_targets):
        logits = plain.apply(params, {}, jnp.tensordot(of_images, images, 1), context())[0]
        return float(-(of_targets @ targets * jax.nn.log_softmax(logits)).sum(1).mean())

    matrices = [matrix_by_hand(config, key, number) for number in range(2)]
    parts = (slice(0, 8), slice(8, 16))
    by_hand = np.mean(
        [loss(images[part], targets[part], m, m) for part, m in zip(parts, matrices, strict=True)]
    )
    micro_batches = {name: x.reshape(2, 8, *x.shape[1:]) for name, x in batch().items()}
    step = training.make_train_step(task, optax.sgd(0.1), accumulate=2)
    state = training.init_state(
        task, optax.sgd(0.1), key, jax.ShapeDtypeStruct(images.shape, images.dtype), with_ema=False
    ).replace(params=params)
    _, metrics = step(state, micro_batches, key)
    np.testing.assert_allclose(metrics["loss"], by_hand, rtol=1e-5)
    within = scipy.linalg.block_diag(*matrices)
    across = matrix(noise.CyclicShift(0.3), BATCH, 1)  # labels mixed over the whole batch
    assert loss(images, targets, within, within) == pytest.approx(by_hand, rel=1e-5)
    assert abs(loss(images, targets, within, across) - by_hand) > 1e-3
