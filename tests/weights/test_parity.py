"""The same logits as timm from the same file; the files in golden/ come from make_golden.py."""

import jax
import numpy as np
import pytest

from pnoise_jax import models
from pnoise_jax.weights.adapt import resize
from tests.models import test_golden as timm
from tests.weights import sources


def assert_same_logits(model, variables, golden):
    logits = jax.jit(model.apply)(variables, golden["images"])
    expected = golden["logits"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["vit_token", "vit_mean", "resnet_bottleneck"])
def test_safetensors_of_timm(name, tmp_path):
    golden = sources.arrays(sources.TIMM / f"{name}.npz")
    file = sources.save_timm(tmp_path / "no_suffix", name)
    model = timm.create(name)
    variables = sources.read(file, model, *golden["images"].shape[1:])
    assert_same_logits(model, variables, golden)


@pytest.mark.parametrize("name", ["augreg", "big_vision"])
def test_npz_of_google(name):
    model = sources.vit(dim=24, depth=2, mlp_dim=48)
    variables = sources.read(sources.GOLDEN / f"{name}.npz", model)
    assert_same_logits(model, variables, sources.arrays(sources.GOLDEN / "google.npz"))


def test_at_another_resolution(tmp_path):
    model = sources.vit(image_size=(48, 40))
    variables = sources.read(sources.save_timm(tmp_path / "file", "vit_token"), model)
    assert_same_logits(model, variables, sources.arrays(sources.GOLDEN / "resized.npz"))


@pytest.mark.parametrize("grid", [(6, 6), (2, 2), (3, 7), (1, 4)])
def test_positions_are_resized_as_timm_does(grid):
    golden = sources.arrays(sources.GOLDEN / "positions.npz")
    name = f"{grid[0]}x{grid[1]}"
    resized = resize.resize(golden["from"][:, 1:], (4, 4), grid)
    np.testing.assert_allclose(resized, golden[f"bare/{name}"], atol=3e-6)
    np.testing.assert_allclose(resized, golden[f"to/{name}"][:, 1:], atol=3e-6)
    resized = resize.resize(golden["from"][:, 1:], (4, 4), grid, method="bilinear", antialias=False)
    np.testing.assert_allclose(resized, golden[f"linear/{name}"][:, 1:], atol=3e-6)


def test_torchvisions_resnet_is_timms(tmp_path):
    """The batch counters that both keep are not weights; the suffix is ignored."""
    model = models.create_model("resnet18", num_classes=7, stage_sizes=(2, 1, 1), width=6)
    state = sources.timm_state("resnet_basic")
    assert "bn1.num_batches_tracked" in state
    variables = sources.read(
        sources.save_timm(tmp_path / "resnet.npz", "resnet_basic"), model, 32, 32, 3
    )
    np.testing.assert_array_equal(
        variables["batch_stats"]["stage2_block1"]["downsample_bn"]["var"],
        state["layer2.0.downsample.1.running_var"],
    )
