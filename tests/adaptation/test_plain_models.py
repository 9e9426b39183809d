"""What other programs get from a run: a plain model that computes the same, or a clear refusal."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from scipy import special

from pnoise_jax import models, training, weights
from pnoise_jax.adaptation import CdTrans
from pnoise_jax.weights.formats import task_parts
from pnoise_jax.weights.formats.array_file import ArrayFile, Format
from tests.adaptation import domains

pytestmark = pytest.mark.long

SIZES = {"image_size": 8, "patch_size": 4, "dim": 16, "depth": 1, "num_heads": 2}
OPTIONS = {
    "tvt": {},
    "ssrt": {"task.bottleneck_dim": 4, "task.check_every": 16},
    "cdtrans": {"task.source_duration": "2 steps", "task.pair_every": "2 steps"},
}


def train(task, workdir, **changes):
    """The rows of a run of four steps."""
    made = domains.config(task)
    for field, value in {"duration": "4 steps", "model.depth": 1, **changes}.items():
        section, _, key = field.rpartition(".")
        (made[section] if section else made)[key] = value
    made.update_from_flattened_dict(OPTIONS[task])
    return training.train(made, workdir)


def plain():
    return models.create_model("vit_ti_16", num_classes=4, **SIZES)


@pytest.mark.slow
def test_an_exported_cdtrans_run_predicts_as_the_run_did(tmp_path):
    clean, *_ = train("cdtrans", tmp_path / "run", ema_decay=0.5)
    exported = weights.export(tmp_path / "run")
    assert exported.reference is not None
    images, labels = domains.target().splits["test"]
    images = jnp.asarray(images, jnp.float32) / 127.5 - 1
    for source in (exported.path, tmp_path / "run"):
        logits = jax.jit(plain().apply)(weights.load(source, plain()), images)
        nll = -special.log_softmax(np.asarray(logits), axis=1)[np.arange(len(labels)), labels]
        assert nll.mean() == pytest.approx(clean["nll"], rel=1e-5)


def test_the_folded_norm_computes_the_same_logits():
    model = CdTrans.prepare_model(plain())
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    generator = np.random.default_rng(0)
    flat = {
        name: (0.1 + generator.random(x.shape)).astype(np.float32)
        for name, x in traverse_util.flatten_dict(shapes, sep="/").items()
    }

    def open_arrays():
        return contextlib.nullcontext(flat.__getitem__)

    shapes = {name: x.shape for name, x in flat.items()}
    file = ArrayFile("run", Format.RUN, "weights", shapes, open_arrays)
    folded = task_parts.as_plain_model(file, "cdtrans")
    with folded.open() as read:
        arrays = {name: read(name) for name in folded.shapes}
    assert {name: x.shape for name, x in arrays.items()} == dict(folded.shapes)
    variables, plain_variables = (
        traverse_util.unflatten_dict(each, sep="/") for each in (flat, arrays)
    )
    images = generator.normal(size=(5, 8, 8, 1)).astype(np.float32)
    expected = jax.jit(model.apply)(variables, images)
    logits = jax.jit(plain().apply)(plain_variables, images)
    np.testing.assert_allclose(logits, expected, atol=2e-5)
    assert task_parts.as_plain_model(file, "classification") is file  # nothing to fold


def test_a_tvt_run_is_not_exported_as_a_plain_model(tmp_path):
    train("tvt", tmp_path / "run")
    message = (
        r"is a run of TVT, whose last block weights its attention by a discriminator "
        r"\(params/block_1/attn/key_gate\).*evaluate and audit the run itself"
    )
    with pytest.raises(ValueError, match=f"--workdir='.*' {message}"):
        weights.export(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        weights.load(tmp_path / "run", plain())
    assert not (tmp_path / "run" / "model.safetensors").exists()
    config = training.run_config.read_config(tmp_path / "run")
    assert training.evaluate(config, tmp_path / "run")[0]["n"] == 40


@pytest.mark.slow
def test_an_ssrt_run_provides_weights_without_its_head(tmp_path):
    train("ssrt", tmp_path / "run")
    with pytest.raises(ValueError, match=r"is a run of ssrt, whose head has extra layers.*"):
        weights.export(tmp_path / "run")
    changes = {"weights": str(tmp_path / "run"), "weights_head": "fresh"}
    made = domains.config("source_only", **changes)
    made.model.depth = 1
    matched = training.build(made).match_weights()
    assert matched is not None
    assert matched.total == len(matched.entries) + 2  # all but the head's kernel and bias
