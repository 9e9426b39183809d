"""Runs that are resumed with other evaluation settings say so."""

import json
import shutil

import pytest

from pnoise_jax import training
from pnoise_jax.training import run_config
from pnoise_jax.training.run_files.measured_settings import note_changes
from tests.training.runs import small_config


@pytest.fixture
def started(data_dir, tmp_path):
    config = small_config(data_dir)
    run_config.claim(tmp_path, config)
    return tmp_path, config


def notes(path):
    file = path / "evaluation_settings.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def resume(path, config, step, **changes):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict({f"evaluation.{k}": v for k, v in changes.items()})
    return note_changes(path, changed, step)


def test_nothing_is_noted_unless_a_measured_row_changes(started):
    path, config = started
    assert resume(path, config, 4) == []
    assert resume(path, config, 4, every="2 steps") == []
    assert notes(path) == []


def test_each_change_is_named_with_both_values(started):
    path, config = started
    config.data.test_transform = "resize_crop(0.5)"
    (sentence,) = resume(path, config, 4, views=9, every="2 steps")
    assert "evaluations from step 4 on have other settings" in sentence
    assert "data.test_transform: 'none' before, 'resize_crop(0.5)' now" in sentence
    assert "evaluation.views: 1 before, 9 now" in sentence
    assert "every" not in sentence
    (note,) = notes(path)
    assert (note["step"], note["evaluation.views"]) == (4, 9)
    assert run_config.read_config(path).evaluation.views == 1


def test_settings_are_compared_with_the_latest(started):
    path, config = started
    resume(path, config, 4, views=9)
    assert resume(path, config, 6, views=9) == []
    (sentence,) = resume(path, config, 8)
    assert "evaluation.views: 9 before, 1 now" in sentence
    assert [note["step"] for note in notes(path)] == [4, 8]
    (sentence,) = resume(path, config, 6, views=2)  # from an earlier step
    assert "evaluation.views: 9 before, 2 now" in sentence
    assert [note["step"] for note in notes(path)] == [4, 6]
    assert resume(path, config, 4) == []  # no row was measured with 9 views
    assert notes(path) == []


def test_a_damaged_note_does_not_stop_a_run(started):
    path, config = started
    (path / "evaluation_settings.jsonl").write_text('{"step": 2\n[]\n{"step": "x"}\n{"step": 2}\n')
    (sentence,) = resume(path, config, 4, views=9)
    assert "evaluation.views: 1 before, 9 now" in sentence
    assert [note["step"] for note in notes(path)] == [2, 4]


def test_a_resumed_run_prints_its_note_once(data_dir, tmp_path, capsys):
    config = small_config(data_dir)
    training.train(config, tmp_path)
    config.evaluation.views = 2
    training.train(config, tmp_path)  # it is finished, so it is only evaluated
    assert "other settings" not in capsys.readouterr().out
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    training.train(config, tmp_path)
    output = capsys.readouterr().out
    assert "from step 8 on have other settings (evaluation.views: 1 before, 2 now)" in output
    assert [note["step"] for note in notes(tmp_path)] == [8]
