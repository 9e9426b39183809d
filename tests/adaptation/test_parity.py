"""A whole step of TVT against PyTorch, which computed the published formulas on its own."""

import pathlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pnoise_jax import models
from pnoise_jax.adaptation import Tvt
from pnoise_jax.training.random_streams import RandomStreams
from pnoise_jax.training.task import StepContext

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "tvt.npz")
SMALL = {
    "image_size": 8, "patch_size": 4, "dim": 8, "depth": 1, "num_heads": 2, "mlp_dim": 16,
}  # fmt: skip
OPTIONS = {"detach": False, "discriminator_dropout": 0.0}


def arrays(kind):
    flat = {
        name.removeprefix(f"{kind}/"): value
        for name, value in GOLDEN.items()
        if name.startswith(f"{kind}/")
    }
    return traverse_util.unflatten_dict(flat, sep="/")


@pytest.fixture(scope="module")
def ours():
    """The loss, its terms and its gradients."""
    model = models.create_model("vit_ti_16", num_classes=4, **SMALL)
    weights = {"domain_weight": 0.7, "patch_weight": 0.3, "information_weight": 0.2}
    task = Tvt(
        model=Tvt.prepare_model(model, **OPTIONS), hidden_dim=5, **OPTIONS, **weights
    )  # fmt: skip
    batch = {
        "image": jnp.asarray(GOLDEN["images"][0]),
        "label": jnp.asarray(GOLDEN["labels"]),
        "target_image": jnp.asarray(GOLDEN["images"][1]),
    }
    context = StepContext(jnp.int32(0), RandomStreams(jax.random.key(0)))

    def loss(params):
        return task.loss(params, {"batch_stats": {}}, batch, context)

    with (
        mock.patch.object(Tvt, "coefficient", return_value=jnp.float32(0.4)),
        mock.patch.object(Tvt, "patch_coefficient", return_value=jnp.float32(0.6)),
    ):
        (value, (_, metrics)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
            arrays("param")
        )
    return value, metrics, gradients


def test_the_terms_are_those_of_pytorch(ours):
    _, metrics, _ = ours
    names = {
        "class": "class_loss",
        "domain": "domain_loss",
        "patch": "patch_loss",
        "information": "information",
    }
    for theirs, our_name in names.items():
        expected = float(GOLDEN[f"term/{theirs}"])
        assert float(metrics[our_name]) == pytest.approx(expected, abs=1e-4), theirs


def test_the_gradients_are_those_of_pytorch(ours):
    """Of every parameter: the reversals, the gate that is not detached, and all weights."""
    _, _, gradients = ours
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradients, arrays("gradient")
    )
