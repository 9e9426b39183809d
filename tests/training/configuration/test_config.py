"""Configs: durations, ranges, and errors that name the field."""

import json
import pathlib
import re
import subprocess
import sys

import ml_collections
import pytest

from pnoise_jax import noise, runs, training
from pnoise_jax.training import run_config
from pnoise_jax.training.configuration import config as configs
from pnoise_jax.training.configuration import page as config_page
from pnoise_jax.training.configuration.durations import steps_of
from pnoise_jax.training.configuration.fields import FIELDS
from tests.training.runs import small_config

ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("500 steps", 500),
        ("1 step", 1),
        ("20", 20),
        (20, 20),
        ("10 epochs", 60),
        ("0.5 epochs", 3),
        ("1e3 examples", 20),
        ("0 steps", 0),
    ],
)
def test_durations(duration, steps):
    assert steps_of(duration, field="x", examples=300, batch_size=50) == steps


@pytest.mark.parametrize("duration", ["ten", "10 years", "", "-5 steps", "1.2.3 epochs", None])
def test_a_bad_duration_is_named(duration):
    with pytest.raises(ValueError, match=r"log_every=.*'10 epochs'"):
        steps_of(duration, field="log_every", examples=300, batch_size=50)


def test_the_model_section_has_every_option_of_its_model():
    section = training.model_config("vit_s_16", patch_size=8)
    assert (section.dim, section.patch_size, section.remat, section.mlp_dim) == (
        384,
        8,
        False,
        None,
    )
    section.mlp_dim = 100
    with pytest.raises(ValueError, match=r"unknown field; did you mean 'model\.patch_size'"):
        training.model_config("vit_s_16", patchsize=8)
    with pytest.raises(ValueError, match=r"did you mean .*'vit_s_16'"):
        training.model_config("vit_s")


def test_the_default_config_is_valid():
    training.validate(training.default_config())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", 0, "batch_size=0: give a whole number of at least 1"),
        ("accumulate", -1, "accumulate=-1"),
        ("dtype", "float16", "dtype='float16': give one of float32, bfloat16"),
        ("label_smoothing", 1.0, r"label_smoothing=1.0: give a number in \[0, 1\)"),
        ("ema_decay", 1.5, "ema_decay=1.5"),
        ("steps", 0, "steps=0"),
        ("seed", -1, "seed=-1"),
        ("optimizer.name", "adam", "optimizer.name='adam': give one of adamw, sgd"),
        ("optimizer.schedule", "linear", "one of cosine, cosine_by_epoch, constant"),
        ("optimizer.weight_decay_on", "biases", "give one of kernels, all"),
        ("optimizer.final_learning_rate", -1.0, "optimizer.final_learning_rate=-1.0"),
        ("optimizer.learning_rate", -1.0, "optimizer.learning_rate=-1.0"),
        ("optimizer.clip_norm", 0.0, r"optimizer.clip_norm=0.0: give a number in \(0"),
        ("optimizer.warmup", "soon", "optimizer.warmup='soon'"),
        ("data.std", (0.0,), r"data.std=\[0.0\]"),
        ("data.num_threads", -2, "data.num_threads=-2"),
        ("data.mean", ("a",), r"data.mean=\['a'\]"),
        ("data.mean", (), r"data.mean=\[\]: give one finite number per channel"),
        ("data.mean", (0.5, 0.5), "give the same number of values in both"),
        ("data.mean", (127.5,), r"data.mean=\[127.5\].*by 255 they are data.mean=\(0.5,\)"),
        ("data.mean", (-0.1,), r"data.mean=\[-0.1\]: give statistics of pixels in \[0, 1\]"),
        ("data.mean", (float("nan"),), r"data.mean=\[nan\]: give one finite number"),
        ("data.mean", (70_000.0,), "from 0 to 1$"),
        ("data.std", (58.395,), r"data.std=\[58.395\].*by 255 they are data.std=\(0.229,\)"),
        ("data.std", (float("inf"),), r"data.std=\[inf\]: give one finite number"),
        ("data.std", (float("nan"),), r"data.std=\[nan\]"),
        ("data.std", (-0.5,), r"data.std=\[-0.5\]"),
        ("data.std", (0.001,), r"data.std=\[0.001\].* from 0.0039 to 1"),
        ("duration", "1e400 epochs", "duration='1e400 epochs'"),
        ("checkpoint.keep", 0, "checkpoint.keep=0"),
        ("seed", None, "seed=None: give a value; the default is 0"),
        ("evaluation.seed", None, "evaluation.seed=None"),
        ("optimizer.learning_rate", None, "optimizer.learning_rate=None"),
        ("data.name", None, "data.name=None"),
        ("log_every", None, "log_every=None"),
    ],
)
def test_a_bad_value_is_named(field, value, message):
    config = training.default_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        training.validate(config)


def test_unknown_and_missing_fields_are_named():
    config = ml_collections.ConfigDict(training.default_config().to_dict())
    config.optimizer.learning_rat = 0.1
    with pytest.raises(ValueError, match=r"learning_rat: unknown.* mean 'optimizer\.learning_rate"):
        training.validate(config)
    del config.optimizer.learning_rat
    del config.batch_size
    with pytest.raises(ValueError, match="batch_size is missing"):
        training.validate(config)


def test_a_work_directory_belongs_to_its_config(tmp_path):
    config = training.default_config()
    run_config.claim(tmp_path, config)
    config.batch_size = 128
    assert json.loads((tmp_path / "config.json").read_text())["batch_size"] == 128
    config.seed = 5  # nothing has been trained: the directory is free for another config
    run_config.claim(tmp_path, config)
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    config.data.num_threads = 5  # does not affect results
    config.evaluation.every = "1 epoch"
    config.log_every = "1 step"
    run_config.claim(tmp_path, config)
    config.noise.layer = "3"
    config.optimizer.learning_rate = 0.5
    with pytest.raises(
        ValueError, match=r"noise.layer: None there, '3' now; optimizer.learning_rate: 0.001 there"
    ):
        run_config.claim(tmp_path, config)


@pytest.mark.parametrize(
    "file",
    ["base_config.json", "results.csv", "study.json", "pairs.csv", "seed_3/config.json"],
)
def test_the_directory_of_a_study_is_refused(tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    with pytest.raises(ValueError, match=rf"belongs to a sweep or a study.*\(it has {file}\)"):
        run_config.claim(tmp_path, training.default_config())
    assert not (tmp_path / "config.json").exists()


def test_a_run_resumes_next_to_other_seeds_and_its_audit(tmp_path):
    config = training.default_config()
    run_config.claim(tmp_path, config)
    (tmp_path / "audit").mkdir()
    run_config.claim(tmp_path / "seed_1", config)
    run_config.claim(tmp_path, config)


def test_a_work_directory_that_cannot_be_used_is_named(tmp_path):
    config = training.default_config()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file' cannot be written"):
        run_config.claim(tmp_path / "file", config)
    with pytest.raises(OSError, match="workdir='/proc/run' cannot be written"):
        run_config.claim("/proc/run", config)
    (tmp_path / "lost" / "checkpoints" / "10").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no config\.json"):
        run_config.claim(tmp_path / "lost", config)
    with pytest.raises(OSError, match=r"MB left .* make room"):
        runs.require_room(tmp_path, 10**18)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        run_config.read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="not the config of a run"):
        run_config.read_config(tmp_path)
    with pytest.raises(ValueError, match="--workdir='' is not a directory"):
        run_config.claim("", config)
    with pytest.raises(ValueError, match=r"--workdir='s3://bucket/run' is not the URL of a folder"):
        run_config.claim("s3://bucket/run", config)


def test_a_config_of_an_older_version_is_completed(tmp_path):
    config = training.default_config()
    config.model = training.model_config("resnet18", stage_sizes=(1, 1))
    run_config.claim(tmp_path, config)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["accumulate"], stored["model"]["remat"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert training.read_config(tmp_path).to_dict() == config.to_dict()


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    with runs.lock(tmp_path):
        script = (
            "from pnoise_jax import runs; import pathlib\n"
            f"with runs.lock(pathlib.Path({str(tmp_path)!r})): print('entered')"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
    assert "another process is training there" in done.stderr
    assert "entered" not in done.stdout
    with runs.lock(tmp_path):
        pass


def test_caching_with_several_workers_is_refused():
    config = training.default_config()
    config.data.cache, config.data.num_workers = True, 2
    with pytest.raises(ValueError, match=r"data\.cache=True, data\.num_workers=2: every worker"):
        training.validate(config)


@pytest.mark.parametrize("split", ["test+test", "test[:60%]+test[40%:]"])
def test_an_example_counts_once_in_the_test_split(data_dir, split):
    config = small_config(data_dir, **{"data.train_split": "train+train"})
    assert len(training.build(config).train_data) == 1594  # training may weight some examples
    config.data.test_split = split
    with pytest.raises(ValueError, match=r"data\.test_split='test.*its parts overlap, so \d+ of"):
        training.build(config)


def test_lists_of_harmless_fields_are_nested_and_name_real_fields():
    assert {*configs.OF_HOST} < {*configs.NOT_OF_RESULTS} < {*configs.HARMLESS}
    fields = [field for field, _ in configs.flatten(training.default_config())]
    for prefix in configs.HARMLESS:
        assert any(field.startswith(prefix) for field in fields), prefix


def test_a_custom_noise_and_its_options_survive_the_work_directory(tmp_path):
    config = training.default_config()
    config.noise.name = "tests.noise.test_base:Scale"
    config.noise.options.spread = 2.0
    training.validate(config)
    runs.write_config(tmp_path / "config.json", config)
    stored = run_config.read_config(tmp_path)
    assert stored.noise.options.to_dict() == {"spread": 2.0}
    injection = noise.Injection.from_config(stored.noise)
    assert type(injection.noise).__name__ == "Scale"
    assert injection.noise.spread == 2.0


def test_the_page_of_config_fields_is_up_to_date():
    """If not: python -m pnoise_jax.training.configuration.page > docs/config.md."""
    assert (ROOT / "docs" / "config.md").read_text() == config_page.page()


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_allows_its_default_and_refuses_other_types(name):
    field = FIELDS[name]
    field.validate(name, field.default)
    with pytest.raises(ValueError, match=f"^{re.escape(name)}="):
        field.validate(name, object())
