"""Weights by their id on the Hugging Face hub, of which a small copy runs here."""

import json
import os
import shutil
import sys

import numpy as np
import pytest

from pnoise_jax import training, weights
from pnoise_jax.weights.formats import hub as hub_ids
from tests.training.runs import small_config
from tests.weights import sources
from tests.weights.hub_server import Hub, serve

ID = "hf_hub:timm/vit_test.in1k"
SECTION = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The hub, and where its files are kept; the library reads its settings when it is imported."""
    hub = Hub()
    cache = tmp_path_factory.mktemp("cache")
    with serve(hub) as address, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
            patch.delitem(sys.modules, name)
        patch.setenv("HF_ENDPOINT", address)
        patch.setenv("HF_HOME", str(cache))
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        pytest.importorskip("huggingface_hub", reason='pip install "pnoise_jax[hub]" to test ids')
        yield hub, cache


@pytest.fixture
def hub(running):
    """Empty, as is the cache; nothing was downloaded before."""
    hub, cache = running
    hub.__init__()
    shutil.rmtree(cache, ignore_errors=True)
    hub_ids._download.cache_clear()
    yield hub
    hub_ids._download.cache_clear()


@pytest.fixture
def files(tmp_path):
    """A repository like timm's, with files that must not be downloaded."""
    file = sources.save_timm(tmp_path / "model.safetensors", "vit_token")
    config = {"architecture": "vit_other", "global_pool": "token", "pretrained_cfg": SECTION}
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": file.read_bytes(),
        "pytorch_model.bin": b"a pickle",
        "README.md": b"",
    }


def match(path, **options):
    return weights.match(path, sources.vit(), sources.shapes(sources.vit()), **options)


def test_weights_are_downloaded_described_and_pinned(hub, files):
    commit = hub.commit("timm/vit_test.in1k", files)
    matched = match(ID)
    assert matched.describe().startswith(
        f"weights: 44 of 44 arrays from {ID}@{commit} (safetensors, described as vit_other); timm's"
    )
    assert matched.preprocessing.mean == (0.1, 0.2, 0.3)  # of config.json
    bias = dict(matched.read())["params/head/bias"]
    np.testing.assert_array_equal(bias, sources.timm_state("vit_token")["head.bias"])
    assert {path.rpartition("/")[2] for path in hub.requests if "/resolve/" in path} == {
        "config.json",
        "model.safetensors",
    }
    assert weights.resolved_id(ID) == f"{ID}@{commit}"


def test_a_moved_branch_is_seen_by_the_next_process(hub, files, tmp_path):
    first = hub.commit("timm/vit_test.in1k", files)
    before, digest = match(ID), weights.fingerprint(ID)
    other = sources.save_timm(tmp_path / "other", "vit_token", **{"head.bias": np.ones(7, "f4")})
    second = hub.commit("timm/vit_test.in1k", files | {"model.safetensors": other.read_bytes()})
    assert match(ID).name == before.name == f"{ID}@{first}"
    assert weights.fingerprint(ID) == digest
    hub_ids._download.cache_clear()
    assert match(ID).name == f"{ID}@{second}"
    assert weights.fingerprint(ID) != digest
    assert weights.fingerprint(f"{ID}@{first}") == digest


@pytest.mark.parametrize("prefix", ["hf_hub:", "hf-hub:"])
def test_a_revision_is_a_branch_or_a_commit(hub, files, prefix):
    commit = hub.commit("timm/vit_test.in1k", files, branch="old")
    hub.commit("timm/vit_test.in1k", {"config.json": b"{}"})
    for revision in ("old", commit):
        id_ = f"{prefix}timm/vit_test.in1k@{revision}"
        assert match(id_).name == f"{ID}@{commit}"
    with pytest.raises(ValueError, match=rf"^weights='{ID}@none': timm/.* no revision 'none'$"):
        match(f"{ID}@none")


def test_what_was_downloaded_once_needs_no_hub(hub, files):
    commit = hub.commit("timm/vit_test.in1k", files)
    match(ID)
    hub_ids._download.cache_clear()
    hub.commits.clear()  # it knows nothing any more
    assert match(f"{ID}@{commit}").name == f"{ID}@{commit}"


def test_a_model_in_shards(hub, files, tmp_path):
    state = {k: np.ascontiguousarray(x) for k, x in sources.timm_state("vit_token").items()}
    names = {k: f"model-0000{1 + k.startswith('blocks.')}-of-00002.safetensors" for k in state}
    shards = {}
    for name in set(names.values()):
        sources.save_file({k: x for k, x in state.items() if names[k] == name}, tmp_path / name)
        shards[name] = (tmp_path / name).read_bytes()
    index = {"model.safetensors.index.json": json.dumps({"weight_map": names}).encode()}
    del files["model.safetensors"]
    hub.commit("timm/vit_test.in1k", files | shards | index)
    np.testing.assert_array_equal(dict(match(ID).read())["params/head/bias"], state["head.bias"])


def test_offline_an_id_means_the_commit_downloaded_before(hub, files, monkeypatch):
    commit = hub.commit("timm/vit_test.in1k", files)
    match(ID)
    hub_ids._download.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    number = len(hub.requests)
    assert match(ID).name == f"{ID}@{commit}"
    assert len(hub.requests) == number
    with pytest.raises(OSError, match=r"^weights='hf_hub:timm/x' cannot be downloaded \(.*: check"):
        match("hf_hub:timm/x")


@pytest.mark.parametrize("left", ["config.json", "README.md"])
def test_only_safetensors_are_read(hub, files, left):
    commit = hub.commit("timm/x", {left: files[left], "pytorch_model.bin": b"a pickle"})
    message = rf"^weights='hf_hub:timm/x' has no model\.safetensors at commit {commit}, and no oth"
    with pytest.raises(ValueError, match=message):
        match("hf_hub:timm/x")
    assert not any("pytorch_model" in path for path in hub.requests)


def test_missing_and_gated_repositories(hub, files):
    hub.commit("timm/gated", files)
    hub.gated.add("timm/gated")
    for name in ("timm/none", "timm/gated"):
        message = rf"^weights='hf_hub:{name}': the hub has no '{name}' that you may read: .*auth lo"
        with pytest.raises(ValueError, match=message):
            match(f"hf_hub:{name}")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "timm",
        "timm/",
        "/vit",
        "a/b/c",
        "timm/vit@",
        "timm/v\x1b[2J",
        "../x",
        "timm/ü",
        "timm/a..b",
    ],
)
def test_malformed_ids_are_refused(running, name):
    with pytest.raises(ValueError, match=r"is not an id: give hf_hub:OWNER/NAME, or .*@REVISION"):
        match(f"hf_hub:{name}")


def test_a_hub_that_cannot_be_reached(hub, files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    message = rf"^weights='{ID}' cannot be downloaded \(.*\): check the connection, or run `hf down"
    with pytest.raises(OSError, match=message):
        match(ID)


def test_missing_library_error_tells_how_to_install_it(monkeypatch):
    hub_ids._download.cache_clear()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (match, weights.fingerprint):
        with pytest.raises(
            ValueError, match=rf'^weights=\'{ID}\' is .*: pip install "pnoise_jax\[hub\]", or'
        ):
            call(ID)


def test_a_local_file_of_that_name_takes_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("hf_hub:timm")
    sources.save_timm(tmp_path / "hf_hub:timm" / "vit", "vit_token")
    assert match("hf_hub:timm/vit").name == "hf_hub:timm/vit"
    assert weights.resolved_id("hf_hub:timm/vit") == "hf_hub:timm/vit"


def test_a_run_notes_the_commit_that_it_starts_from(hub, data_dir, tmp_path, capsys):
    sources.save_random_vit(tmp_path / "vit", dim=16, depth=1, patch_size=4, grid=2)
    commit = hub.commit("me/digits", {"model.safetensors": (tmp_path / "vit").read_bytes()})
    config = small_config(data_dir, weights="hf_hub:me/digits")
    config.steps = 1
    training.train(config, tmp_path / "run")
    pinned = f"20 of 20 arrays from hf_hub:me/digits@{commit}"
    assert pinned in capsys.readouterr().out
    training.evaluate(config, tmp_path / "evaluated")
    assert pinned in json.loads((tmp_path / "evaluated" / "evaluation.json").read_text())["weights"]
    training.train(config, tmp_path / "run")  # resumes
