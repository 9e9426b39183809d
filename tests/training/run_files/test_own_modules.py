"""A run with a custom model and noise is reloaded, or the error says where its modules were."""

import importlib
import json
import sys

import pytest

from pnoise_jax import data, models, noise
from pnoise_jax.registry import Origin
from pnoise_jax.training import own_modules, run_config
from pnoise_jax.training.configuration.config import model_config
from pnoise_jax.training.configuration.fields import noise_config
from tests.launch import command
from tests.training.runs import small_config

MODULE = '''
import dataclasses
import numpy as np
from pnoise_jax import data, models, noise

@data.register_dataset("own_data")
def blobs():
    labels = np.arange(120) % 10
    images = (20 * labels[:, None, None, None] + np.zeros((8, 8, 1))).astype(np.uint8)
    return data.InMemory({"train": (images, labels), "test": (images, labels)})

@models.register_model("own_vit", depth=1, dim=8, num_heads=2, image_size=8, patch_size=4)
class Own(models.VisionTransformer, kw_only=True):
    """A ViT by another name."""

@noise.register_noise("own_noise")
@dataclasses.dataclass(frozen=True)
class Scale(noise.Noise):
    strength: float = 0.1
    spread: float = 1.0

    def noisy(self, key, x, *, mask, strength, index):
        return x * (1 + strength * self.spread)
'''
CONFIG = """
from pnoise_jax.training import default_config, model_config
{classes}
def get_config():
    config = default_config()
    config.steps = 2
    config.batch_size = 20
    config.model = model_config("own_vit")
    config.noise.name = "own_noise"
    config.noise.options = {{"spread": 2.0}}
    config.data.name = "own_data"
    config.data.train_split = "train[:40]"
    config.data.test_split = "test[:40]"
    return config

def sweep():
    return [{{"seed": 0}}]
"""
REGISTERED = ("own_vit", "own_noise", "own_data")
BY_MODULE = ("things.mine:Own", "things.mine:Scale", "things.mine:blobs")


def forget():
    for name in ("things.mine", "things"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    registries = (models.registry.MODELS, own_modules.NOISES, own_modules.DATASETS)
    for registry, name in zip(registries, REGISTERED, strict=True):
        registry._things.pop(name, None)
        registry._origins.clear()


@pytest.fixture
def home(tmp_path):
    """A directory with a custom package."""
    file = tmp_path / "home" / "things" / "mine.py"
    file.parent.mkdir(parents=True)
    file.write_text(MODULE)
    yield file.parents[1]
    forget()


@pytest.fixture(params=[REGISTERED, BY_MODULE], ids=["registered", "by module"])
def run(home, tmp_path, request, data_dir):
    """A work directory that uses them, from a program that has ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(home)
        importlib.import_module("things.mine")
        config = small_config(data_dir, **{"noise.preset": None})
        config.model = model_config(request.param[0])
        config.noise.name, config.data.name = request.param[1:]
        config.noise.others.more = noise_config(name=config.noise.name)
        path = run_config.claim(tmp_path / "run", config)
    forget()
    return path


def test_custom_modules_are_imported_if_they_can_be(run, home, monkeypatch):
    monkeypatch.syspath_prepend(home)
    config = run_config.read_config(run)
    assert type(models.create_model(config.model.name)).__name__ == "Own"
    injections = noise.injections_from_config(config.noise)
    assert [type(each.noise).__name__ for each in injections] == ["Scale", "Scale"]
    assert len(data.load(config.data.name, split="test[:30]")) == 30


def test_errors_say_where_custom_modules_were(run, home):
    with pytest.raises(
        ValueError, match=rf"module 'things.mine', which cannot .* was in {home}: p"
    ):
        run_config.read_config(run)
    stored = json.loads((run / "config.json").read_text())
    stored["model"] = dict(model_config("vit_ti_16"))
    (run / "config.json").write_text(json.dumps(stored))
    config = run_config.read_config(run)  # the noise may be replaced, so it is needed later
    with pytest.raises(ValueError, match=rf"noise\.name=.*'things.mine', which .* was in {home}"):
        noise.injections_from_config(config.noise)
    config.noise.name = "none"
    with pytest.raises(ValueError, match=rf"others\.more\.name=.*, which .* was in {home}"):
        noise.injections_from_config(config.noise)
    with pytest.raises(ValueError, match=rf"data set .*'things.mine', which .* was in {home}"):
        data.load(config.data.name, split="test")


def test_a_module_that_no_longer_defines_them_is_named(run, home, monkeypatch):
    (home / "things" / "mine.py").write_text("")
    monkeypatch.syspath_prepend(home)
    with pytest.raises(ValueError, match=r"no longer registered by|has no attribute 'Own'"):
        run_config.read_config(run)


def test_built_in_modules_are_not_stored(tmp_path, data_dir):
    path = run_config.claim(tmp_path / "run", small_config(data_dir))
    assert not (path / "modules.json").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"model": 3}', '{"model": {"name": "x"}}'])
def test_a_damaged_modules_json_is_ignored(tmp_path, content):
    (tmp_path / "modules.json").write_text(content)
    own_modules.remember(tmp_path)
    assert "x" not in models.registry.MODELS._origins


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("config_config", r"config file /x/c\.py, which has not been read: give --config=/x/c\.py"),
        ("__main__", r"program /x/c\.py, which has not been read: register it first"),
    ],
)
def test_errors_say_how_to_define_what_cannot_be_imported(module, message):
    models.registry.MODELS.remember("own_vit", Origin(module, "/x/c.py"))
    try:
        with pytest.raises(ValueError, match=message):
            models.create_model("own_vit")
    finally:
        forget()


def test_a_config_file_that_defines_them_can_be_swept(tmp_path, data_dir):
    """It is executed once, or its classes would be registered twice."""
    file = tmp_path / "mine.py"
    file.write_text(CONFIG.format(classes=MODULE))
    code, _, errors = command.run(
        "sweep", f"--config={file}", f"--workdir={tmp_path / 'sweep'}", f"--data_dir={data_dir}"
    )
    assert code == 0, errors
    code, _, errors = command.run(
        "evaluate", f"--workdir={next((tmp_path / 'sweep/runs').iterdir())}"
    )
    assert code == 64
    assert f"is defined in the config file {file}, which has not been read: give --con" in errors
