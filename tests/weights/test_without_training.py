"""Weights that are evaluated and audited as they are, and what reports say about them."""

import importlib
import json

import pytest

from pnoise_jax import studies, training
from pnoise_jax.evaluation import predictions
from pnoise_jax.studies.sweep.sweep import run_sweep
from tests.training.runs import small_config
from tests.weights import sources

EXPECTED = "note: the weights expect data.mean=(0.25,), but it is (0.5,): set it"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A ViT for the digits, which expects another mean than theirs."""
    directory = tmp_path_factory.mktemp("weights")
    (directory / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.25]}}))
    sources.save_random_vit(directory / "vit", dim=16, depth=1, patch_size=4, grid=2)
    return directory / "vit"


@pytest.fixture
def config(data_dir, file):
    return small_config(data_dir, weights=str(file))


def test_reports_say_which_images_the_weights_expect(config, tmp_path):
    training.evaluate(config, tmp_path)
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert EXPECTED in report["notes"]
    assert "20 of 20 arrays" in report["weights"]

    settings = studies.AuditSettings(batch_sizes=(10,), purity_steps=0, resamples=100)
    studies.audit_runs(config, tmp_path / "audited", settings=settings)
    report = json.loads((tmp_path / "audited" / "audit" / "audit.json").read_text())
    assert EXPECTED in report["notes"]
    page = (tmp_path / "audited" / "audit" / "audit.html").read_text()
    verdict, method = page.index('id="verdict"'), page.index('id="method"')
    assert verdict < page.index(EXPECTED) < page.index('id="reading"')
    assert method < page.index("20 of 20 arrays")
    assert "Training steps" not in page  # there were none


def test_long_evaluations_report_their_progress(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(predictions, "REPORT_EVERY", 0.0)
    evaluate = importlib.import_module("pnoise_jax.evaluation.evaluate")  # hidden by its function
    monkeypatch.setattr(evaluate, "EXAMPLES_PER_DEVICE", 4)
    training.evaluate(config, tmp_path)
    printed = capsys.readouterr().out
    for what in ("clean", "noisy, shuffled", "noisy, class-sorted"):
        assert f"{what}: 200 of 200 examples, " in printed
        assert printed.count(f"{what}: ") >= 3
    said = predictions.how_far("clean", done=250, total=1000, rate=25.0)
    assert said == "clean: 250 of 1000 examples, 25.0 examples/s, 0:00:30 left"


@pytest.mark.parametrize("head", ["keep", "auto"])
def test_what_cannot_be_evaluated_leaves_nothing(config, data_dir, tmp_path, head):
    config.weights_head = head
    config.model.depth = 2
    workdir = tmp_path / "run"
    for call in (
        lambda: training.evaluate(config, workdir),
        lambda: studies.audit_runs(config, workdir),
        lambda: run_sweep(config, [{"seed": 0}], workdir),
    ):
        with pytest.raises(ValueError, match=r"block_2|depth=1"):
            call()
    assert not workdir.exists()


def test_a_run_is_not_evaluated_as_if_it_had_other_weights(config, data_dir, file, tmp_path):
    """The weights that it started from may be given again, or be gone."""
    workdir, settings = tmp_path / "run", studies.AuditSettings(batch_sizes=(10,))
    rows = training.train(config, workdir)
    other = tmp_path / "other"
    other.write_bytes(file.read_bytes()[:-1] + b"?")
    for path in (other, "/nowhere/at_all"):
        config.weights = str(path)
        before = (workdir / "evaluation.json").read_bytes()
        for call in (
            lambda: training.evaluate(config, workdir),
            lambda: studies.audit_runs(config, workdir, settings=settings),
        ):
            with pytest.raises(ValueError, match=f"weights: '{file}' there, '{path}' now"):
                call()
        assert (workdir / "evaluation.json").read_bytes() == before
    for path in (None, str(file), "/nowhere/vit"):
        config.weights = path
        assert training.evaluate(config, workdir) == rows


def test_an_audit_that_would_train_says_so(config, tmp_path):
    config.data.train_split = "nothing"
    with pytest.raises(
        ValueError, match=r"would train a run of seed 0, 1; leave --seeds out to audit the w"
    ):
        studies.audit_runs(config, tmp_path, seeds=(0, 1))
    config.weights, config.weights_required = None, True
    with pytest.raises(ValueError, match="weights=None: this config only fine-tunes"):
        studies.audit_runs(config, tmp_path)
