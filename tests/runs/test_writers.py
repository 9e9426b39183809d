"""Where metrics go: event files of TensorBoard, metrics.jsonl, and custom writers."""

import contextlib
import json

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from pnoise_jax import runs, training
from pnoise_jax.runs import RunDirectory, find_writer, open_writers
from tests.training.runs import small_config

CONFIG = {"seed": 0, "optimizer.learning_rate": 1e-3, "model.mlp_dim": None, "data.mean": [0.5]}


def events(path):
    """The events of all files, which are TFRecords."""
    for file in sorted(path.glob("events.out.tfevents.*")):
        content = memoryview(file.read_bytes())
        while content:
            length = int.from_bytes(content[:8], "little")
            yield Event.FromString(bytes(content[12 : 12 + length]))
            content = content[16 + length :]


def scalars(path):
    return {
        (value.tag, event.step): value.simple_value
        for event in events(path)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    }


def write(path, step, names=("tensorboard",)):
    with contextlib.closing(
        open_writers(RunDirectory(path), names, config=CONFIG, step=step)
    ) as writers:
        writers.write(step + 1, {"loss": 2.0, "steps_per_second": 5.0, "clean/top1": 50.0})
        writers.finish({"clean/top1": 60.0, "noisy, class-sorted/top1": 90.0})


def test_tensorboard_has_groups_the_report_and_hyperparameters(tmp_path):
    write(tmp_path, 0)
    assert scalars(tmp_path) == {
        ("train/loss", 1): 2.0,
        ("speed/steps_per_second", 1): 5.0,
        ("clean/top1", 1): 50.0,
        ("report/clean/top1", 1): 60.0,
        ("report/noisy_class-sorted/top1", 1): 90.0,
    }
    plugins = [
        HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in events(tmp_path)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "hparams"
    ]
    (start,) = [p.session_start_info for p in plugins if p.HasField("session_start_info")]
    assert set(start.hparams) == {"seed", "optimizer.learning_rate", "data.mean"}
    assert start.hparams["optimizer.learning_rate"].number_value == pytest.approx(1e-3)


def test_writers_that_are_opened_within_a_second_keep_all_files(tmp_path):
    for step in (0, 1, 2):
        write(tmp_path, step)
    assert {("train/loss", step) for step in (1, 2, 3)} <= scalars(tmp_path).keys()
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 3


def test_a_resumed_run_drops_the_lines_after_its_checkpoint(tmp_path):
    for step in (0, 4, 2):
        write(tmp_path, step)
    lines = [json.loads(line) for line in RunDirectory(tmp_path).metrics.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 3]


def steps_of(path):
    text = RunDirectory(path).metrics.read_text()
    assert text.endswith("\n")
    return [json.loads(line)["step"] for line in text.splitlines()]


def test_a_file_without_its_last_newline_loses_no_row(tmp_path):
    write(tmp_path, 0, names=())
    file = RunDirectory(tmp_path).metrics
    file.write_text(file.read_text().rstrip("\n"))
    for step in (2, 4):
        write(tmp_path, step, names=())
    assert steps_of(tmp_path) == [1, 3, 5]


def test_rows_on_one_line_are_separated(tmp_path, capsys):
    """An earlier version wrote the next row onto a last line without a newline."""
    file = RunDirectory(tmp_path).metrics
    file.write_text('{"step": 1}{"step": 2} {"step": 9}\n\n{"step": 3}\n')
    write(tmp_path, 4, names=())
    assert steps_of(tmp_path) == [1, 2, 3, 5]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("broken", ['{"step": 2, "lo', "[1]", '{"loss": 1.0}', '{"step": "x"}'])
def test_an_invalid_line_is_dropped_and_named(tmp_path, capsys, broken):
    file = RunDirectory(tmp_path).metrics
    file.write_text(f'{{"step": 1}}\n{broken}\n{{"step": 3}}\n')
    write(tmp_path, 4, names=())
    assert steps_of(tmp_path) == [1, 3, 5]
    output = " ".join(capsys.readouterr().out.split())
    assert f"dropped what is not a row of metrics: {broken!r}" in output


def test_a_file_that_an_editor_replaces_gets_the_next_rows(tmp_path):
    with contextlib.closing(
        open_writers(RunDirectory(tmp_path), (), config=CONFIG, step=0)
    ) as writers:
        writers.write(1, {"loss": 2.0})
        (tmp_path / "edited").write_text('{"step": 1, "loss": 2.0}')
        (tmp_path / "edited").replace(RunDirectory(tmp_path).metrics)
        writers.write(2, {"loss": 2.0})
    assert steps_of(tmp_path) == [1, 2]


def test_the_last_step_and_the_report_of_a_run_are_written(data_dir, tmp_path):
    training.train(small_config(data_dir), tmp_path)
    written = scalars(tmp_path)
    report = json.loads(RunDirectory(tmp_path).evaluation.read_text())
    names = ("clean", "noisy_shuffled", "noisy_class-sorted")
    for name, row in zip(names, report["rows"], strict=True):
        assert written[f"report/{name}/top1", 12] == pytest.approx(row["top1"], rel=1e-6)
    assert ("train/loss", 12) in written


class Mine:
    """A custom writer."""

    closed = 0

    def __init__(self, run, config, step):
        self.lines = (run.path / "mine.txt").open("a")

    def write(self, step, metrics):
        self.lines.write(f"{step} {metrics['loss']:.1f}\n")

    def finish(self, metrics):
        self.lines.write(f"finished {len(metrics)}\n")

    def close(self):
        Mine.closed += 1
        self.lines.close()


def test_a_custom_writer(tmp_path):
    write(tmp_path, 0, names=(f"{__name__}:Mine",))
    assert (tmp_path / "mine.txt").read_text() == "1 2.0\nfinished 2\n"
    assert Mine.closed == 1
    assert not list(tmp_path.glob("events*"))


class Silent:
    """Lacks two of the methods."""

    def write(self, step, metrics): ...


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "writers: unknown writer 'tensorbord'; did you mean 'tensorboard'"),
        (
            f"{__name__}:Silent",
            "Silent has no finish, close: define them; see runs.Writer for what",
        ),
        ("no_such_module:Writer", "writer 'no_such_module:Writer' cannot be imported"),
    ],
)
def test_a_bad_writer_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        find_writer(name)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_library_error_tells_how_to_install_it(name):
    with contextlib.suppress(ImportError):
        __import__(name)
        pytest.skip(f"{name} is installed")
    with pytest.raises(ValueError, match=rf'not installed .*: pip install "pnoise_jax\[{name}\]"'):
        find_writer(name)


def test_weights_and_biases_offline(tmp_path, monkeypatch):
    """Needs wandb, which the extra of the tests does not install."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (0, 4):
        write(tmp_path, step, names=("wandb",))
    assert (tmp_path / "wandb_id").read_text()
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2


def test_mlflow_on_disk(tmp_path, monkeypatch):
    """Needs mlflow, which the extra of the tests does not install."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs the whole mlflow
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "study")
    mlflow.set_tracking_uri(f"file://{tmp_path / 'store'}")
    directory = tmp_path / "run"
    directory.mkdir()
    for step in (0, 4):
        write(directory, step, names=("mlflow",))
    run = mlflow.MlflowClient().get_run((directory / "mlflow_id").read_text())
    assert run.info.status == "FINISHED"
    assert mlflow.get_experiment(run.info.experiment_id).name == "study"
    assert run.data.metrics["train/loss"] == 2.0
    assert run.data.metrics["report/noisy_class-sorted/top1"] == 90.0
    assert run.data.params["optimizer.learning_rate"] == "0.001"


def test_the_package_exports_what_a_writer_needs():
    assert {"Writer", "RunDirectory"} <= set(runs.__all__)
