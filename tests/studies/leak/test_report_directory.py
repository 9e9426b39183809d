"""Where audits go: nothing is overwritten by another audit."""

import json

import pytest

from pnoise_jax import noise, studies, training
from pnoise_jax.studies.leak import report_directory as places
from pnoise_jax.studies.leak.audit import identify
from pnoise_jax.studies.leak.audited.audited_noise import AuditedNoise
from pnoise_jax.studies.reporting.report import require_own
from tests.training.runs import small_config

NOISES = (AuditedNoise.of(noise.Injection.preset("paper_vit"), 12),)


def open_directory(path, measurement, out=None):
    return places.open_directory(path, out, measurement, NOISES, [0])


def pretend_to_write(directory, measurement):
    (directory / "audit.json").write_text(json.dumps({"measurement": measurement}))
    (directory / "audit.csv").write_text("")


def test_another_audit_of_a_run_has_another_directory(tmp_path):
    first = open_directory(tmp_path, "12345678")
    assert first == tmp_path / "audit"
    pretend_to_write(first, "12345678")
    assert open_directory(tmp_path, "12345678") == first
    second = open_directory(tmp_path, "abcdef01")
    assert second.parent == tmp_path / "audits"
    assert second.name.endswith("-abcdef01")
    pretend_to_write(second, "abcdef01")
    assert open_directory(tmp_path, "abcdef01") == second


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"audit.json": '{"measurement": "00000000"}'}, "holds another audit"),
        ({"audit.json": "{}"}, "holds another audit"),
        ({"audit.json": "no JSON"}, "holds another audit"),
        ({"predictions.npz": "mine"}, r"holds other files \(predictions.npz\)"),
        ({"orders.png": "mine"}, r"holds other files \(orders.png\)"),
    ],
)
def test_out_is_refused_where_something_else_would_be_overwritten(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(FileExistsError, match=f"^--out=.* {message}.*choose another directory"):
        open_directory(tmp_path / "run", "12345678", out=tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("name", ["audit", "audits", "seed_0"])
def test_a_file_in_the_place_of_a_directory_is_named(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(NotADirectoryError, match=f"^--workdir=.*{name} is a file"):
        open_directory(tmp_path, "12345678")


def test_a_directory_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "audit" / "audit.html").mkdir(parents=True)
    with pytest.raises(OSError, match=r"audit\.html is a directory, but a file of that name"):
        open_directory(tmp_path, "12345678")


def test_settings_and_data_identify_an_audit(data_dir, tmp_path):
    config = small_config(data_dir)

    def identity(noises=NOISES, seeds=(0,), metric=None, settings=None, **changes):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(changes)
        experiment = training.build(changed)
        what = places.describe(experiment, tmp_path, seeds, noises)
        settings = settings or studies.AuditSettings()
        return identify(settings, experiment.test_data.labels, metric, what)

    others = [
        identity(seeds=(1,)),
        identity(metric=max),
        identity(settings=studies.AuditSettings(orders=20)),
        identity(settings=studies.AuditSettings(seed=1)),
        identity(**{"data.test_split": "test[:500]"}),
        identity(**{"optimizer.learning_rate": 0.1}),
        identity(
            noises=(AuditedNoise.of(noise.Injection.preset("paper_vit").with_strength(1), 12),)
        ),
    ]
    assert len({identity(), *others}) == len(others) + 1
    same = [
        identity(**{"data.num_workers": 2, "data.cache": False}),
        identity(**{"evaluation.every": "3 steps", "checkpoint.keep": 7}),
        identity(seed=5),  # seeds are given separately
    ]
    assert {*same} == {identity()}


class _Full:
    """An audit whose first ``full`` writes find no space."""

    def __init__(self, full):
        self.full, self.written = full, []

    def write(self, directory):
        self.written.append(directory)
        if len(self.written) <= self.full:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("full", "words"), [(1, "it is in .*audit-.* instead"), (2, "printed")])
def test_an_audit_that_cannot_be_written_is_not_lost(tmp_path, monkeypatch, full, words):
    monkeypatch.setattr(places.tempfile, "mkdtemp", lambda prefix: str(tmp_path / f"{prefix}x"))
    audit = _Full(full)
    with pytest.raises(OSError, match=rf"'{tmp_path}/run' \(No space left on device\).*{words}"):
        places.write(audit, tmp_path / "run")
    assert audit.written[1] == str(tmp_path / "audit-x")


def test_require_own_accepts_an_empty_directory(tmp_path):
    require_own(tmp_path, "12345678", named="x")
    require_own(tmp_path / "missing", "12345678", named="x")
