"""When training starts, its weights are matched once and read once."""

import contextlib

import pytest

from pnoise_jax import training, weights
from pnoise_jax.weights import entries, matching
from tests.training.runs import small_config
from tests.weights import sources
from tests.weights.opens import watch_opens


@pytest.fixture
def config(data_dir, tmp_path):
    sources.save_random_vit(tmp_path / "vit", dim=16, depth=1, patch_size=4, grid=2)
    config = small_config(data_dir, weights=str(tmp_path / "vit"), weights_head="auto")
    config.steps = 1
    return config


@contextlib.contextmanager
def counted(monkeypatch, module, name):
    """The calls of a function, which still works."""
    calls, function = [], getattr(module, name)

    def count(*arguments, **options):
        calls.append(arguments)
        return function(*arguments, **options)

    monkeypatch.setattr(module, name, count)
    yield calls


def test_a_start_opens_the_file_as_often_as_its_parts_do(config, tmp_path):
    """To match it, to take its fingerprint, and to read it: each once."""
    file = tmp_path / "vit"
    with watch_opens(file) as opens:
        matched = training.build(config).match_weights()
        to_match = opens.number
        dict(matched.read())
        to_read = opens.number - to_match
        weights.fingerprint(file)
        to_identify = opens.number - to_match - to_read
    assert (to_match, to_read) == (2, 1)  # its format and its names; its arrays
    file.touch()  # its fingerprint is then taken again
    with watch_opens(file) as opens:
        training.train(config, tmp_path / "run")
        assert opens.number == to_match + to_read + to_identify


def test_each_array_is_read_once_and_the_names_are_matched_once(config, tmp_path, monkeypatch):
    with (
        counted(monkeypatch, matching, "match_named") as matches,
        counted(monkeypatch, matching, "read_entries") as reads,
        counted(monkeypatch, entries.Entry, "read") as arrays,
    ):
        training.train(config, tmp_path / "run")
    assert (len(matches), len(reads)) == (1, 1)
    read = [entry.names for entry, *_ in arrays]
    assert len(read) == len(set(read)) == 20


def test_weights_that_are_evaluated_as_they_are(config, tmp_path, monkeypatch):
    config.weights_head = "keep"
    with (
        counted(monkeypatch, matching, "match_named") as matches,
        counted(monkeypatch, matching, "read_entries") as reads,
    ):
        training.evaluate(config, tmp_path / "evaluated")
    assert (len(matches), len(reads)) == (1, 1)
