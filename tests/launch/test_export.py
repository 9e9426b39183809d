"""pnoise export as a user runs it."""

import importlib
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from pnoise_jax import models, training, weights
from tests.launch import command
from tests.training.runs import small_config

pytestmark = pytest.mark.long

VIT = {"image_size": 8, "patch_size": 4, "dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory):
    """A finished run with an EMA, without its data set."""
    workdir = tmp_path_factory.mktemp("run")
    config = small_config(data_dir, ema_decay=0.9, **{"data.test_transform": "resize_crop(0.9)"})
    training.train(config, workdir)
    config.data.data_dir = "/nowhere"
    (workdir / "config.json").write_text(config.to_json_best_effort())
    return workdir


@pytest.fixture(scope="module")
def exported(run):
    code, output, errors = command.run("export", f"--workdir={run}", "--format=timm")
    assert code == 0, errors
    return run / "model.safetensors", output


def test_the_average_is_exported_bit_for_bit(run, exported):
    file, _ = exported
    model = models.create_model("vit_ti_16", num_classes=10, **VIT)
    before, after = weights.load(run, model), weights.load(file, model)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (before["params"]["head"]["kernel"] != 0).any()


def test_the_file_describes_itself(run, exported):
    file, output = exported
    assert f"wrote {file}: 20 arrays" in output
    assert "EMA weights of step 12" in output
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    assert metadata["timm.model"] == "vit_tiny_patch16_224"
    seen = json.loads(metadata["pretrained_cfg"])
    assert seen == {
        "mean": [0.5],
        "std": [0.5],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "num_classes": 10,
        "input_size": [1, 8, 8],
    }
    model = models.create_model("vit_ti_16", num_classes=10, **VIT)
    images = jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    expected = weights.match(file, model, shapes).preprocessing
    assert expected.mean == expected.std == (0.5,)
    assert expected.test_transform == "resize_crop(0.9, interpolation='bicubic')"
    with pytest.raises(ValueError, match=r"has num_heads=2, the model 4: set model\.num_heads=2"):
        weights.match(file, model.clone(num_heads=4), shapes)


def test_timm_computes_the_same_logits(exported):
    torch = pytest.importorskip("torch")
    timm = pytest.importorskip("timm")
    file, output = exported
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    theirs = timm.create_model(metadata["timm.model"], **json.loads(metadata["timm.arguments"]))
    assert f"timm.create_model('{metadata['timm.model']}', num_classes=10, in_chans=1" in output
    theirs.load_state_dict({k: torch.from_numpy(x) for k, x in load_file(file).items()})
    model = models.create_model("vit_ti_16", num_classes=10, **VIT)
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
    ours = jax.jit(model.apply)(weights.load(file, model), jnp.asarray(images))
    with torch.inference_mode():
        logits = theirs.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(ours, logits, rtol=0, atol=1e-5 * np.abs(logits).max())


def test_nothing_is_overwritten(run, exported):
    before = exported[0].read_bytes()
    code, _, errors = command.run("export", f"--workdir={run}")
    assert code == 64
    assert f"--out='{exported[0]}' exists: name another file" in errors
    assert "Traceback" not in errors
    assert exported[0].read_bytes() == before


def test_paths_that_cannot_be_written_are_named(run, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"--out='.*file': .*none is not a directory; create it"
    ):
        weights.export(run, tmp_path / "none" / "file")
    with pytest.raises(
        OSError, match=r"--out='/proc/file' cannot be written .*: choose a writable"
    ):
        weights.export(run, "/proc/file")
    weights.export(run, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_checkpoint_is_exported_to_the_same_file_as_its_run(run, exported, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run", ignore=lambda *_: ["model.safetensors"])
    newest = max((copy / "checkpoints").iterdir(), key=lambda path: int(path.name))
    assert weights.export(newest).path == copy / "model.safetensors"
    expected, exported_again = load_file(exported[0]), load_file(copy / "model.safetensors")
    assert exported_again.keys() == expected.keys()
    assert all(np.array_equal(exported_again[name], x) for name, x in expected.items())


def test_a_name_of_another_format_is_refused(run, tmp_path):
    with pytest.raises(
        ValueError,
        match=r"model.pth'.*: the format is safetensors, .*name the file model.safetensors",
    ):
        weights.export(run, tmp_path / "model.pth")
    assert not list(tmp_path.iterdir())


def test_no_mean_is_stated_if_a_mean_image_is_subtracted(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run", ignore=lambda *_: ["model.safetensors"])
    config = json.loads((copy / "config.json").read_text())
    config["data"] |= {"mean_image": "/there/mean.npy", "std": [1.0]}
    (copy / "config.json").write_text(json.dumps(config))
    code, output, errors = command.run("export", f"--workdir={copy}")
    assert code == 0, errors
    assert "subtract data.mean_image='/there/mean.npy' from pixels in [0, 1]" in output
    with safe_open(copy / "model.safetensors", framework="numpy") as opened:
        stated = json.loads(opened.metadata()["pretrained_cfg"])
    assert (stated["mean_image"], stated["std"]) == ("mean.npy", [1.0])
    assert "mean" not in stated
    sentences = []
    model = models.create_model("vit_ti_16", num_classes=10, **VIT)
    weights.load(copy, model, report=sentences.append)
    assert "expect mean image '/there/mean.npy' to be subtracted, std (1.0,)" in sentences[-1]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_overwritten(run, tmp_path, monkeypatch, links):
    out = tmp_path / "file"

    def save_late(*arguments, **options):
        save_file(*arguments, **options)
        out.write_text("another's")

    def refuse(*_):
        raise OSError("no links here")

    module = importlib.import_module("pnoise_jax.weights.export")  # hidden by its function
    monkeypatch.setattr(module, "save_file", save_late)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(FileExistsError, match="exists: name another file"):
        weights.export(run, out)
    assert out.read_text() == "another's"
    assert list(tmp_path.iterdir()) == [out]


def test_a_registered_custom_model_is_refused(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["model"]["name"] = "own_vit"
    (copy / "config.json").write_text(json.dumps(config))
    models.register_model("own_vit")(type("OwnVit", (models.VisionTransformer,), {}))
    try:
        with pytest.raises(ValueError, match="a run of 'own_vit', your own model, which timm"):
            weights.export(copy, tmp_path / "out.safetensors")
    finally:
        del models.registry.MODELS._things["own_vit"]
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("section", "changed", "message"),
    [
        ("model", {"name": "resnet18"}, "unknown option of resnet18"),
        (
            "model",
            {"name": "mine:Vit"},
            "a run of 'mine:Vit', your own model, which timm does",
        ),
        ("model", {"depth": 2}, r"params/block_2/.* is \(.*\) in the config and none in the check"),
        ("model", {"image_size": 16}, r"pos_embed is \(1, 17, 16\) in the config and \(1, 5, 16\)"),
        ("model", {"name": None}, "does not match its checkpoint"),
        ("data", {"mean": None}, "does not match its checkpoint"),
        ("data", None, r"does not match its checkpoint \(it has no 'data'\); rest"),
    ],
)
def test_a_config_of_another_model_is_refused(run, tmp_path, section, changed, message):
    """timm could not load any of these files."""
    shutil.copytree(run / "checkpoints", tmp_path / "run" / "checkpoints")
    config = json.loads((run / "config.json").read_text())
    if changed is None:
        del config[section]
    else:
        config[section].update(changed)
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        weights.export(tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_checkpoint_is_exported_into_the_work_directory(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("*.safetensors"))
    written = weights.export(tmp_path / "run" / "checkpoints" / "12")
    assert written.path == tmp_path / "run" / "model.safetensors"


def test_a_path_without_a_run_is_named(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="contains no run: it is a file"):
        weights.export(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="contains no run: there is no such directory"):
        weights.export(tmp_path / "none")
    with pytest.raises(ValueError, match=r"--workdir='.*' is a directory without a checkpoint"):
        weights.export(tmp_path)
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(ValueError, match=r"has a checkpoint but no readable config\.json"):
        weights.export(tmp_path)
