"""Variables for a model from a file, read once."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from pnoise_jax import models, weights
from pnoise_jax.weights import matching
from tests.weights import sources


def test_a_fresh_head_is_drawn_from_the_key(tmp_path):
    file = sources.save_timm(tmp_path / "file", "vit_token")

    def kernel(**key):
        return weights.load(file, sources.vit(), head="fresh", **key)["params"]["head"]["kernel"]

    np.testing.assert_array_equal(kernel(), kernel(key=jax.random.key(0)))
    assert (kernel() != kernel(key=jax.random.key(1))).all()


def test_the_file_is_opened_once_and_gives_the_channels(tmp_path, monkeypatch):
    opened = []

    def open_file(path, original=matching.open_file):
        opened.append(path)
        return original(path)

    monkeypatch.setattr(matching, "open_file", open_file)
    sources.save_random_vit(tmp_path / "file", dim=16, depth=1, patch_size=4, grid=2)
    model = models.create_model(
        "vit_ti_16", num_classes=10, image_size=8, patch_size=4, dim=16, depth=1, num_heads=2
    )
    params = weights.load(tmp_path / "file", model)["params"]
    assert params["patch_embed"]["kernel"].shape == (4, 4, 1, 16)
    assert opened == [tmp_path / "file"]


def test_a_file_without_the_first_convolution_is_refused(tmp_path):
    file = sources.save_timm(tmp_path / "file", "vit_token", **{"patch_embed.proj.weight": None})
    with pytest.raises(ValueError, match=r"1 missing: params/patch_embed/kernel \(8, 8, 3, 36\)"):
        weights.load(file, sources.vit())


def test_a_model_without_a_head_is_refused(tmp_path):
    file = sources.save_timm(tmp_path / "file", "vit_token")
    with pytest.raises(ValueError, match=r"^the model has no params/head for .*: use a model of "):
        weights.load(file, nn.Dense(3))


def test_load_reports_what_it_did(tmp_path):
    file = sources.save_timm(tmp_path / "file", "vit_token")
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"mean": [0.25, 0.5, 0.5]}}')
    messages = []
    weights.load(file, sources.vit(9, image_size=(48, 40)), head="auto", report=messages.append)
    arrays, assumed, images = messages
    assert assumed.startswith("assumed, because neither the arrays nor a description show it: ac")
    assert arrays.endswith("head fresh (7 → 9 classes); position embedding 4×4 → 6×5")
    assert images.startswith("the weights expect mean (0.25, 0.5, 0.5)")
