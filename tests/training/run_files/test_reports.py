"""Where reports go: nothing is overwritten by another measurement."""

import dataclasses
import json
import os
import shutil

import jax
import pytest

from pnoise_jax import training
from pnoise_jax.training import reports, run_config
from pnoise_jax.training.evaluating import evaluating
from pnoise_jax.training.loop import loop
from tests.training.runs import small_config


@pytest.fixture(scope="module")
def trained(data_dir, tmp_path_factory):
    """A run of one step: its config, directory and rows."""
    directory = tmp_path_factory.mktemp("trained")
    config = small_config(data_dir, **{"duration": "1 steps", "data.test_split": "test[:100]"})
    rows = training.train(config, directory)
    return config, directory, rows


@pytest.fixture
def run(trained, tmp_path):
    """A copy of `trained`, and its config."""
    config, directory, _ = trained
    shutil.copytree(directory, tmp_path / "run")
    return tmp_path / "run", config.copy_and_resolve_references()


def files(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.suffix == ".json" and "checkpoints" not in path.parts
    }


CHANGES = [
    {"evaluation.batch_size": 20},
    {"evaluation.seed": 1},
    {"evaluation.views": 2},
    {"data.test_split": "test[:50]"},
    {"noise.strength": 0.25},
]


def test_every_measurement_has_its_own_file(run, capsys):
    directory, config = run
    before = files(directory)
    written = set()
    for change in CHANGES:
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(change)
        rows = training.evaluate(changed, directory)
        (new,) = files(directory).keys() - before.keys() - written
        written.add(new)
        report = json.loads((directory / new).read_text())
        assert report["rows"] == rows
        assert f"wrote {directory / new}\n" in capsys.readouterr().out
    assert all(name.startswith("evaluations/step_1,digits,test") for name in written)
    assert files(directory).items() >= before.items()
    assert any("batch_20" in name for name in written)


def test_the_same_measurement_goes_to_the_same_file_and_says_so(run, capsys):
    directory, config = run
    config.evaluation.batch_size = 20
    training.evaluate(config, directory)
    (first,) = (directory / "evaluations").iterdir()
    config.data.num_threads, config.log_every, config.evaluation.every = 1, "7 steps", "1 epochs"
    training.evaluate(config, directory)
    assert [*(directory / "evaluations").iterdir()] == [first]
    assert "the same measurement as before, with the same numbers" in capsys.readouterr().out

    report = json.loads(first.read_text())
    report["rows"][0]["top1"] = 12.34
    first.write_text(json.dumps(report | {"device": "another"}))
    training.evaluate(config, directory)
    output = capsys.readouterr().out
    assert "with other numbers (top-1 was 12.3, " in output
    assert "on another with jax" in output


def test_evaluating_a_run_again_does_not_change_its_report(run, capsys):
    directory, _ = run
    before = (directory / "evaluation.json").read_bytes()
    training.evaluate(None, directory)
    assert (directory / "evaluation.json").read_bytes() == before
    assert not (directory / "evaluations").exists()
    assert "the same measurement as before, with the same numbers" in capsys.readouterr().out


def test_resuming_with_other_settings_keeps_the_first_report(run):
    directory, config = run
    before = (directory / "evaluation.json").read_bytes()
    config.evaluation.batch_size = 20
    training.train(config, directory)
    assert (directory / "evaluation.json").read_bytes() == before
    assert len([*(directory / "evaluations").iterdir()]) == 1


def test_training_moves_the_report_of_another_measurement(run, capsys):
    """Such as of weights that were evaluated there before, or of an earlier version."""
    directory, config = run
    for content in ("{}", '{"measurement": "../../x", "rows": []}', "no JSON"):
        (directory / "evaluation.json").write_text(content)
        rows = training.train(config, directory)
        assert json.loads((directory / "evaluation.json").read_text())["rows"] == rows
        moved = "evaluation.json was the report of another measurement, and was moved to"
        assert moved in capsys.readouterr().out
    kept = {path.read_text() for path in (directory / "evaluations").glob("earlier-*.json")}
    assert kept == {"{}", '{"measurement": "../../x", "rows": []}', "no JSON"}


@pytest.fixture(scope="module")
def in_two_parts(data_dir, tmp_path_factory):
    """A run of two steps with a checkpoint of each, evaluated on another split."""
    directory = tmp_path_factory.mktemp("in_two_parts")
    changes = {"duration": "0.16 epochs", "data.test_split": "test[:100]"}
    config = small_config(data_dir, **changes, **{"checkpoint.every": "1 steps"})
    training.train(config, directory)
    return config, directory


@pytest.fixture
def unfinished(in_two_parts, tmp_path):
    """A copy of `in_two_parts` after its first step."""
    config, directory = in_two_parts
    path = tmp_path / "run"
    shutil.copytree(directory, path)
    shutil.rmtree(path / "checkpoints" / "2")
    (path / "evaluation.json").unlink()
    return path, config.copy_and_resolve_references()


@pytest.mark.parametrize("out", [False, True])
def test_the_report_of_an_unfinished_run_is_not_evaluation_json(unfinished, capsys, out):
    directory, config = unfinished
    place = directory / "elsewhere" if out else directory
    rows = training.evaluate(None, directory, out=place)
    assert not (place / "evaluation.json").exists()
    (report,) = (place / "evaluations").iterdir()
    assert report.name.startswith("step_1,")
    assert "(the run has reached step 1 of 2, and evaluation.json is" in capsys.readouterr().out
    training.evaluate(None, directory, out=place)
    assert "the same measurement as before, with the same numbers" in capsys.readouterr().out
    assert training.train(config, directory) != rows
    assert json.loads((directory / "evaluation.json").read_text())["step"] == 2


@pytest.fixture
def stale(unfinished):
    """The run of `unfinished` with a report on its first step, as earlier versions wrote it."""
    directory, config = unfinished
    training.evaluate(None, directory)
    (report,) = (directory / "evaluations").iterdir()
    report.rename(directory / "evaluation.json")
    return directory, config


@pytest.mark.parametrize("batch_size", [10, 20])
def test_training_moves_the_report_of_another_step(stale, batch_size):
    """Also if it is resumed with other evaluation settings."""
    directory, config = stale
    before = (directory / "evaluation.json").read_text()
    config.evaluation.batch_size = batch_size
    training.train(config, directory)
    (moved,) = (directory / "evaluations").glob("earlier-*.json")
    assert moved.read_text() == before
    assert (directory / "evaluation.json").exists() == (batch_size == 10)
    rows = training.evaluate(None, directory)
    stored = json.loads((directory / "evaluation.json").read_text())
    assert (stored["step"], stored["rows"]) == (2, rows)


def test_the_report_of_another_step_is_moved_when_the_finished_run_is_evaluated(
    stale, in_two_parts
):
    directory, config = stale
    shutil.copytree(in_two_parts[1] / "checkpoints" / "2", directory / "checkpoints" / "2")
    before = (directory / "evaluation.json").read_text()
    config.evaluation.batch_size = 20
    training.evaluate(config, directory)
    assert (
        directory / "evaluation.json"
    ).read_text() == before  # another measurement does not replace it
    training.evaluate(None, directory)
    assert json.loads((directory / "evaluation.json").read_text())["step"] == 2
    (moved,) = (directory / "evaluations").glob("earlier-*.json")
    assert moved.read_text() == before


def test_out_leaves_the_run_unchanged(run, tmp_path):
    directory, _ = run
    before = files(directory)
    rows = training.evaluate(None, directory, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["rows"] == rows
    assert files(directory) == before


def test_an_evaluation_that_fails_leaves_no_empty_directory(run, tmp_path):
    directory, _ = run
    config = training.read_config(directory)
    config.evaluation.batch_size = 10_000
    with pytest.raises(ValueError, match=r"evaluation\.batch_size=10000"):
        training.evaluate(config, directory, out=tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()
    assert directory.exists()


def test_other_weights_of_the_same_config_are_another_measurement(run, tmp_path, monkeypatch):
    """As if the run were trained again on another machine or with another version."""
    directory, _ = run
    out = tmp_path / "out"
    training.evaluate(None, directory, out=out)
    first = files(out)["evaluation.json"]
    restore = evaluating.restore

    def restore_another(*arguments, **options):
        restored = restore(*arguments, **options)
        moved = jax.tree.map(lambda x: x * 1.5, restored.variables)
        return dataclasses.replace(restored, variables=moved)

    monkeypatch.setattr(evaluating, "restore", restore_another)
    rows = training.evaluate(None, directory, out=out)
    assert files(out)["evaluation.json"] == first
    (other,) = (out / "evaluations").iterdir()
    assert json.loads(other.read_text())["rows"] == rows


def put_in_the_way(place):
    """Puts a directory in a file's place, or the reverse."""
    is_directory = place.name in ("checkpoints", "evaluations", "unreadable")
    shutil.rmtree(place, ignore_errors=True)
    place.unlink(missing_ok=True)
    place.write_text("") if is_directory else place.mkdir()


@pytest.mark.parametrize("name", ["evaluation.json", "evaluations", "config.json"])
def test_a_path_of_the_wrong_kind_is_named_before_an_evaluation(run, monkeypatch, name):
    directory, config = run
    put_in_the_way(directory / name)
    monkeypatch.setattr(evaluating, "restore", None)
    with pytest.raises(OSError, match=f"{name} is a (directory|file)"):
        training.evaluate(config, directory)


@pytest.mark.parametrize(
    "name",
    [
        "evaluation.json",
        "evaluations",
        "metrics.jsonl",
        "evaluation_settings.jsonl",
        "config.json",
        ".lock",
        "checkpoints",
        "data.json",
        "unreadable",
    ],
)
def test_a_path_of_the_wrong_kind_is_named_before_training(run, monkeypatch, name):
    directory, config = run
    before = files(directory).items()
    put_in_the_way(directory / name)
    monkeypatch.setattr(loop, "create_program", None)
    with pytest.raises(OSError, match=f"{name} is a (directory|file)"):
        training.train(config, directory)
    assert before - files(directory).items() <= {k for k in before if k[0] == name}


def test_a_read_only_directory_is_refused_before_an_evaluation(trained, unprivileged):
    _, directory, _ = trained
    place, as_other = unprivileged
    shutil.copytree(directory, place / "run")
    os.chmod(place / "run", 0o555)

    def check():
        with pytest.raises(OSError, match=r"^--workdir=.* cannot be written \(Permission denied\)"):
            training.evaluate(None, place / "run")
        with pytest.raises(OSError, match=r"^--out=.* cannot be written \(Permission denied\)"):
            training.evaluate(None, place / "run", out=place / "run" / "new")

    as_other(check)


def test_a_report_that_cannot_be_written_is_printed(run, monkeypatch, capsys):
    directory, config = run
    config.evaluation.batch_size = 20

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reports.writing, "replace_file", full)
    with pytest.raises(OSError, match=r"No space left on device\): it is printed above instead"):
        training.evaluate(config, directory)
    output = capsys.readouterr().out
    printed = json.loads(output[output.index("\n{\n") :])
    assert [row["batch_size"] for row in printed["rows"]] == [20, 20, 20]
    assert printed["config"]["evaluation"]["batch_size"] == 20


def test_results_whose_checkpoints_are_gone_are_not_overwritten(run):
    directory, config = run
    shutil.rmtree(directory / "checkpoints")
    before = files(directory)
    config.optimizer.learning_rate = 0.5
    with pytest.raises(
        ValueError, match=r"checkpoints are gone \(different optimizer.learning_rate\)"
    ):
        training.train(config, directory)
    assert files(directory) == before


def test_unreadable_checkpoints_are_not_mistaken_for_none(trained, unprivileged):
    """Otherwise the run would look new, and its config be replaced."""
    config, directory, _ = trained
    place, as_other = unprivileged
    shutil.copytree(directory, place / "run")
    for path in (place / "run", *(place / "run").iterdir()):
        path.chmod(0o777)
    (place / "run" / "checkpoints").chmod(0)

    def check():
        with pytest.raises(PermissionError, match="checkpoints cannot be read and written"):
            run_config.claim(place / "run", config)

    as_other(check)
    (place / "run" / "checkpoints").chmod(0o777)


@pytest.mark.parametrize("kind", ["file", "dangling link", "none"])
def test_missing_or_invalid_checkpoints_are_named_and_nothing_changes(run, kind):
    directory, _ = run
    place = directory / "checkpoints"
    shutil.rmtree(place)
    if kind == "file":
        place.write_text("")
    elif kind == "dangling link":
        place.symlink_to(directory / "nowhere")
    before = sorted(directory.iterdir())
    what = "contains no checkpoint; train" if kind == "none" else "is not a directory: put"
    with pytest.raises(OSError, match=f"checkpoints {what}"):
        training.evaluate(None, directory)
    assert sorted(directory.iterdir()) == before


@pytest.mark.parametrize("name", ["1", "70", "007", "4\u0662"])
def test_a_path_that_only_looks_like_a_checkpoint_is_named(run, monkeypatch, name):
    """Orbax counts it, and cannot save where a file has the number."""
    directory, config = run
    place = directory / "checkpoints" / name
    if place.name.isascii() and not name.startswith("0"):
        shutil.rmtree(place, ignore_errors=True)
        place.write_text("")
    else:
        place.mkdir()
    monkeypatch.setattr(loop, "create_program", None)
    with pytest.raises(OSError, match=f"{name} has a checkpoint's name but is not one: move it"):
        training.train(config, directory)


def test_a_config_that_is_damaged_during_an_evaluation_loses_no_results(run, monkeypatch):
    directory, config = run
    before = files(directory)["evaluation.json"]
    measured = reports.measured

    def damage(*arguments):
        (directory / "config.json").write_text("{}")
        return measured(*arguments)

    monkeypatch.setattr(reports, "measured", damage)
    config.evaluation.batch_size = 20
    rows = training.evaluate(config, directory)
    (other,) = (directory / "evaluations").iterdir()
    assert json.loads(other.read_text())["rows"] == rows
    assert files(directory)["evaluation.json"] == before


def test_a_path_that_is_not_utf8_is_refused_before_training(run, tmp_path):
    place = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(ValueError, match="is not in UTF-8, and checkpoints cannot be written"):
        training.train(run[1], place)
    assert not place.exists()
