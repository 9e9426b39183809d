"""The loop: resuming, syncing, compiling, and what stops it."""

import contextlib
import json
import shutil
import traceback

import chex
import jax
import numpy as np
import pytest
from jax._src.array import ArrayImpl

from pnoise_jax import parallel, runs, training
from pnoise_jax.runs import Checkpoints
from pnoise_jax.training import run_config
from pnoise_jax.training.loop import console
from tests.training.runs import small_config


def final_state(config, directory):
    like = training.build(config).abstract_state(parallel.data_mesh())
    with contextlib.closing(Checkpoints(directory, keep=3)) as checkpoints:
        return checkpoints.restore(like)


def metric_lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(data_dir, tmp_path_factory):
    """12 steps without a break."""
    directory = tmp_path_factory.mktemp("straight")
    config = small_config(data_dir)
    rows = training.train(config, directory)
    return config, directory, rows


def test_a_finished_run_has_its_files(straight):
    config, directory, rows = straight
    assert sorted(int(p.name) for p in (directory / "checkpoints").iterdir()) == [4, 8, 12]
    assert [line["step"] for line in metric_lines(directory)] == [4, 8, 12]
    assert {"loss", "top1", "grad_norm", "learning_rate", "examples_per_second"} <= metric_lines(
        directory
    )[0].keys()
    assert list(directory.glob("events.out.tfevents.*"))
    stored = json.loads((directory / "config.json").read_text())
    assert stored["batch_size"] == config.batch_size
    report = json.loads((directory / "evaluation.json").read_text())
    assert report["rows"] == rows
    assert report["step"] == 12
    assert [(row["noise"], row["order"], row["batch_size"]) for row in rows] == [
        (False, "shuffled", 10),
        (True, "shuffled", 10),
        (True, "class_sorted", 10),
    ]
    assert {row["n"] for row in rows} == {200}


def without_speed(lines):
    speed = ("steps_per_second", "examples_per_second", "data_wait")
    return [{k: v for k, v in line.items() if k not in speed} for line in lines]


def test_rows_do_not_depend_on_when_checkpoints_are_written(straight, data_dir, tmp_path):
    """Nor after resuming between two rows."""
    _, directory, rows = straight
    config = small_config(data_dir, **{"checkpoint.every": "3 steps", "checkpoint.keep": 9})
    assert training.train(config, tmp_path) == rows
    assert without_speed(metric_lines(tmp_path)) == without_speed(metric_lines(directory))
    for step in (9, 12):
        shutil.rmtree(tmp_path / "checkpoints" / str(step))
    assert training.train(config, tmp_path) == rows
    assert without_speed(metric_lines(tmp_path)) == without_speed(metric_lines(directory))


@pytest.mark.parametrize("broken", [False, True])
def test_resuming_is_bitwise_exact(straight, tmp_path, broken):
    """From step 8; or, with that checkpoint's data damaged, from step 4."""
    config, directory, rows = straight
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    if broken:
        shutil.rmtree(tmp_path / "checkpoints" / "8" / "state")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')  # killed while writing
    assert training.train(config, tmp_path) == rows
    assert [line["step"] for line in metric_lines(tmp_path)] == [4, 8, 12]
    got, expected = final_state(config, tmp_path), final_state(config, directory)
    chex.assert_trees_all_equal(got, expected)


def test_a_finished_run_is_only_evaluated_again(straight, tmp_path):
    config, directory, rows = straight
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    assert training.train(config, tmp_path) == rows
    assert training.evaluate(None, tmp_path) == rows


def test_a_run_that_names_a_retired_preset_can_be_evaluated(straight, data_dir, tmp_path):
    _, directory, _ = straight
    shutil.copytree(directory, tmp_path / "named", dirs_exist_ok=True)
    shutil.copytree(directory, tmp_path / "spelled_out", dirs_exist_ok=True)
    file = tmp_path / "named" / "config.json"
    stored = json.loads(file.read_text())
    stored["noise"] |= {"preset": "published_vit", "strength": 0.2}
    file.write_text(json.dumps(stored))
    spelled_out = {
        "noise.preset": None,
        "noise.name": "linear_transform",
        "noise.quality": "cyclic_shift",
        "noise.strength": 0.2,
        "noise.point": "attention_input",
        "noise.tokens": "patch",
        "noise.train": True,
        "noise.inference": True,
    }
    config = small_config(data_dir, **spelled_out)
    assert training.read_config(tmp_path / "named").to_dict() == config.to_dict()
    run_config.claim(tmp_path / "named", config)  # the same run
    rows = training.evaluate(None, tmp_path / "named")
    assert rows == training.evaluate(config, tmp_path / "spelled_out")
    assert rows[1]["nll"] != rows[0]["nll"]


def test_evaluate_takes_other_noise_but_no_other_model(straight, data_dir):
    _, directory, rows = straight
    before = (directory / "evaluation.json").read_text()
    other = small_config(
        data_dir, **{"noise.point": "attention_input", "evaluation.batch_size": 50}
    )
    noisy = training.evaluate(other, directory)
    assert noisy[0]["top1"] == rows[0]["top1"]  # clean
    assert noisy[2]["nll"] != rows[2]["nll"]
    with pytest.raises(ValueError, match=r"model.depth: 1 there, 2 now"):
        training.evaluate(small_config(data_dir, **{"model.depth": 2}), directory)
    (directory / "evaluation.json").write_text(before)


def test_training_in_another_configs_directory_is_refused(straight, data_dir):
    _, directory, _ = straight
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    with pytest.raises(ValueError, match=r"noise.layer: None there, '1' now; seed: 0 there, 7 now"):
        training.train(small_config(data_dir, **{"seed": 7, "noise.layer": "1"}), directory)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def test_a_run_that_another_process_trains_keeps_its_config(data_dir, tmp_path):
    run_config.claim(tmp_path, small_config(data_dir))  # without a checkpoint yet
    before = (tmp_path / "config.json").read_text()
    with runs.lock(tmp_path), pytest.raises(OSError, match="in use: another process is training"):
        training.train(small_config(data_dir, seed=7), tmp_path)
    assert (tmp_path / "config.json").read_text() == before


def test_no_recompilation_and_no_sync_between_reports(data_dir, tmp_path, monkeypatch):
    """Three times as many steps compile no more; the host reads device arrays only in reports."""
    compiled, readers = [], []
    fetch = ArrayImpl._value

    def record_fetch(array):
        names = {frame.name for frame in traceback.extract_stack()}
        if names & {"_after_step", "advance"}:
            readers.append(names & {"close", "save", "add", "to_devices"})
        return fetch.fget(array)

    def record_compile(event, *_, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    def run(steps, name):
        compiled.clear()
        readers.clear()
        changes = {"duration": f"{steps} steps", "log_every": f"{steps} steps"}
        config = small_config(data_dir, **changes, **{"checkpoint.every": f"{steps} steps"})
        training.train(config, tmp_path / name)
        return len(compiled), list(readers)

    run(4, "warm")  # what is compiled once per process
    monkeypatch.setattr(ArrayImpl, "_value", property(record_fetch))
    jax.monitoring.register_event_duration_secs_listener(record_compile)
    try:
        few, _ = run(4, "few")
        many, reads = run(12, "many")
    finally:
        jax.monitoring.unregister_event_duration_listener(record_compile)
    assert few == many
    assert few > 0
    assert reads  # those of reports
    assert all(read & {"close", "save"} for read in reads)


def test_a_loss_that_is_not_finite_names_its_step_and_the_last_checkpoint(data_dir, tmp_path):
    changes = {
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 1e30,
        "optimizer.warmup": "1 step",  # the first step leaves the parameters alone
        "checkpoint.every": "1 step",
    }
    with pytest.raises(
        training.NonFiniteLossError,
        match=r"the loss of step 3 is nan, and its gradient norm .* the last whole .* of step 2,",
    ):
        training.train(small_config(data_dir, **changes), tmp_path)
    saved = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
    assert sorted(saved) == [1, 2]
    assert not (tmp_path / "evaluation.json").exists()


def test_accumulation_ema_noise_in_training_and_periodic_evaluation_together(
    data_dir, tmp_path, capsys
):
    changes = {
        "accumulate": 2,
        "ema_decay": 0.9,
        "dtype": "bfloat16",
        "noise.preset": "paper_vit",
        "optimizer.name": "sgd",
        "optimizer.clip_norm": 1.0,
        "evaluation.every": "6 steps",
        "model.dropout": 0.1,
    }
    training.train(small_config(data_dir, **changes), tmp_path)
    lines = metric_lines(tmp_path)
    (line,) = (line for line in lines if "clean/top1" in line)
    assert line["step"] == 6
    printed = capsys.readouterr().out
    assert f"step 6/12  clean evaluation: top-1 {line['clean/top1']:.1f} %, top-5 " in printed
    assert "compiled; the first step took" in printed
    assert json.loads((tmp_path / "evaluation.json").read_text())["weights"] == "ema"


VIEWS = {"noise.axis": "views", "noise.group_size": 4, "evaluation.views": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 20}, "batch_size=20 is not divisible by 8 devices"),
        ({"accumulate": 4}, r"batch_size=16 is not divisible by 8 devices x accumulate=4"),
        ({"batch_size": 208}, "batch_size=208 is larger than data.train_split='train"),
        ({"model.name": "vit_ti16"}, "unknown model 'vit_ti16'; did you mean 'vit_ti_16'"),
        ({"model.image_size": 16}, "needs images of 16 x 16 pixels, but digits has 8 x 8"),
        ({"data.name": "digit"}, "data.name='digit'.*'digits'"),
        ({"data.test_split": "tset"}, "tset.*test_split"),
        ({"data.mean": (0.1, 0.2), "data.std": (1.0, 1.0)}, "1 channels; give 1"),
        ({"noise.layer": "2"}, "noise.layer=2: this model has no layer 2"),
        ({"noise.group_size": 3}, "noise.group_size=3 does not divide the batch of 10"),
        ({"noise.axis": "views", "noise.group_size": 2}, r"evaluation\.views=1: set both"),
        ({**VIEWS, "noise.train": True}, "training shows one view of each image"),
        ({"evaluation.views": 10}, r"evaluation\.views=10: give a whole number from 1 to 9"),
        ({"duration": "0 steps"}, "less than one step"),
        ({"log_every": "0.2 steps"}, "log_every='0.2 steps' is less than one step"),
        ({"checkpoint.every": "1 example"}, "checkpoint.every='1 example' is less than one step"),
        ({"evaluation.every": "0 epochs"}, "evaluation.every='0 epochs' is less than one step"),
        ({"evaluation.batch_size": 1001}, "would be the same single batch; lower evaluation.batch"),
        ({"optimizer.warmup": "99 steps"}, "longer than the run's 12"),
        ({"optimizer.warmup": "12 steps"}, "all of the run's 12 steps, which leaves none"),
    ],
)
def test_a_bad_config_fails_by_name_before_anything_is_written(
    data_dir, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        training.train(small_config(data_dir, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mixing_the_views_of_an_image_does_not_depend_on_the_order(data_dir, tmp_path):
    clean, shuffled, class_sorted = training.train(small_config(data_dir, **VIEWS), tmp_path)
    assert shuffled["nll"] == pytest.approx(class_sorted["nll"], rel=1e-5)
    assert shuffled["nll"] != pytest.approx(clean["nll"], rel=1e-5)


def test_a_shortened_run_has_a_shorter_warmup(data_dir):
    config = small_config(data_dir, **{"steps": 6, "optimizer.warmup": "4 steps"})
    experiment = training.build(config)
    assert experiment.total_steps == 6
    assert float(experiment.schedule(2)) == pytest.approx(config.optimizer.learning_rate)


def test_the_rate_changes_once_an_epoch(data_dir):
    changes = {"duration": "4 epochs", "optimizer.schedule": "cosine_by_epoch"}
    changes["data.train_split"] = "train[:192]"  # 12 steps
    whole = training.build(small_config(data_dir, **changes))
    cut = training.build(small_config(data_dir, **changes, steps=8))
    rates = [0.5 * (1 + np.cos(np.pi * epoch / 4)) * 1e-3 for epoch in range(4)]
    for epoch, rate in enumerate(rates):
        for step in (12 * epoch, 12 * epoch + 11):
            assert float(whole.schedule(step)) == pytest.approx(rate)
        assert float(cut.schedule(2 * epoch)) == pytest.approx(rate)
        assert float(cut.schedule(2 * epoch + 1)) == pytest.approx(rate)


def test_the_rate_changes_once_an_epoch_of_fractional_steps(data_dir):
    changes = {"duration": "6 epochs", "optimizer.schedule": "cosine_by_epoch", "batch_size": 80}
    config = small_config(data_dir, **changes)  # 2.5 steps in an epoch
    whole = [float(rate) for rate in map(training.build(config).schedule, range(15))]
    config.steps = 9  # 1.5 steps in an epoch
    cut = [float(rate) for rate in map(training.build(config).schedule, range(9))]
    rates = 0.5e-3 * (1 + np.cos(np.pi * np.arange(6) / 6))
    assert whole == pytest.approx(list(np.repeat(rates, [3, 2, 3, 2, 3, 2])))
    assert cut == pytest.approx(list(np.repeat(rates, [2, 1, 2, 1, 2, 1])))


def test_the_header_says_k_and_which_constraints_are_broken(data_dir):
    changes = {"noise.preset": "paper_vit", "noise.strength": 0.5, "accumulate": 2}
    experiment = training.build(small_config(data_dir, **changes))
    described = console.describe_noise(experiment)
    assert "block_input, layer 1, all tokens; on in training" in described
    assert "k = 10 in noisy evaluation; k = 8 in training" in described
    notes = console.warn_of_noise(experiment)
    assert [note.split(",")[0] for note in notes] == [
        "with k = 10 in noisy evaluation",
        "with k = 8 in training",
    ]
    assert all("singular" in note for note in notes)
    assert console.warn_of_noise(training.build(small_config(data_dir))) == []


def test_a_run_can_be_evaluated_on_devices_that_could_not_train_it(straight, data_dir, tmp_path):
    """A batch of 16 splits over 8 devices; the stored config then claims batches of 18."""
    _, directory, rows = straight
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stored | {"batch_size": 18}))
    assert training.evaluate(None, tmp_path) == rows
    with pytest.raises(ValueError, match="batch_size=18 is not divisible by 8 devices"):
        training.train(small_config(data_dir, batch_size=18), tmp_path)


def test_a_profile_is_written(data_dir, tmp_path):
    training.train(small_config(data_dir, profile="3:2"), tmp_path)
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000


@pytest.mark.parametrize("window", ["3", "3:0", "a:b", "-1:2", "3:2:1"])
def test_a_bad_profile_window_is_named(data_dir, window):
    with pytest.raises(ValueError, match=f"profile='{window}': give START:STEPS"):
        training.build(small_config(data_dir, profile=window))
