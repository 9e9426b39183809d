"""Formats by content, and files without weights."""

import ast
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pnoise_jax import weights
from pnoise_jax.weights.formats import json_files
from pnoise_jax.weights.formats.array_file import Format
from tests.weights import sources


def match(file):
    model = sources.vit()
    return weights.match(file, model, sources.shapes(model))


def test_the_suffix_does_not_matter(tmp_path):
    file = tmp_path / "weights.pth"
    sources.save_timm(file, "vit_token")
    assert match(file).file.format is Format.SAFETENSORS
    model = sources.vit(dim=24, depth=2, mlp_dim=48)
    (tmp_path / "weights.bin").write_bytes((sources.GOLDEN / "augreg.npz").read_bytes())
    matched = weights.match(tmp_path / "weights.bin", model, sources.shapes(model))
    assert matched.file.format is Format.NPZ


@pytest.mark.parametrize("more", range(1, 129, 8))
def test_the_header_of_a_safetensors_file_may_begin_like_a_pickle(tmp_path, more):
    """One of these has a length whose lowest byte is 0x80."""
    state = {k: np.ascontiguousarray(x) for k, x in sources.timm_state("vit_token").items()}
    save_file(state, tmp_path / "file", metadata={"note": "x" * more})
    assert match(tmp_path / "file").file.format is Format.SAFETENSORS


@pytest.mark.parametrize(("protocol", "zipped"), [(0, False), (1, False), (2, False), (2, True)])
def test_a_pickle_is_refused_unread(tmp_path, protocol, zipped):
    """As torch.save writes it, now and before 1.6, and as pickle does by itself."""
    file = tmp_path / "who's.pth"
    pickled = pickle.dumps(Explosive(), protocol=protocol)
    if zipped:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model/data.pkl", pickled)
    else:
        file.write_bytes(pickled)
    with pytest.raises(ValueError, match="is a pickle") as refused:
        match(file)
    _, imports, *recipe, _ = str(refused.value).split("\n")
    assert imports == "  import torch, safetensors.torch"
    for line in recipe:
        ast.parse(line.strip())
    assert f"torch.load({str(file)!r}, weights_only=True" in recipe[0]
    assert recipe[1].endswith('"who\'s.safetensors")')


def test_an_npz_with_pickled_objects_is_refused_unread(tmp_path):
    file = tmp_path / "weights.npz"
    np.savez(file, **{"embedding/kernel": np.array([Explosive()], object)})
    with pytest.raises(ValueError, match=r"contains pickled objects \(embedding/kernel.npy\)"):
        match(file)


class Explosive:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def shard(directory):
    """Saves a model in two files, as on the hub; returns the path of their index."""
    state = {k: np.ascontiguousarray(x) for k, x in sources.timm_state("vit_token").items()}
    names = {k: f"model-0000{1 + k.startswith('blocks.')}-of-00002.safetensors" for k in state}
    for name in set(names.values()):
        save_file({k: x for k, x in state.items() if names[k] == name}, directory / name)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}, indent=2))
    return index


def test_a_model_in_shards(tmp_path):
    index = shard(tmp_path)
    whole = sources.read(sources.save_timm(tmp_path / "whole", "vit_token"), sources.vit())
    chex.assert_trees_all_equal(sources.read(index, sources.vit()), whole)
    second = tmp_path / "model-00002-of-00002.safetensors"
    with pytest.raises(ValueError, match=r"shard 2 of 2.* give .* model\.safetensors\.index\.json"):
        match(second)
    with pytest.raises(
        ValueError, match=r"give a file of weights in it, model\.safetensors\.index\.json or"
    ):
        match(tmp_path)
    digest = weights.fingerprint(index)
    flip_last_byte(second)
    assert weights.fingerprint(index) != digest
    shutil.copy(tmp_path / "model-00001-of-00002.safetensors", second)
    with pytest.raises(ValueError, match=r"is the index of files that lack blocks\.0\.attn"):
        match(index)
    second.unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors is not beside it"):
        match(index)
    index.write_text(json.dumps({"weight_map": {"a": "../whole"}}))
    with pytest.raises(ValueError, match=r"has a in '\.\./whole', which is not a file beside it"):
        match(index)


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_files_of_the_same_size_are_told_apart_by_their_content(tmp_path, kind, monkeypatch):
    """They are larger than any JSON file that is read."""
    monkeypatch.setattr(json_files, "MAX_BYTES", 100)
    if kind == "npz":
        original = shutil.copy(sources.GOLDEN / "augreg.npz", tmp_path / "one")
    else:
        original = sources.save_timm(tmp_path / "one", "vit_token")
    copy = shutil.copy(original, tmp_path / "other")
    assert weights.fingerprint(original) == weights.fingerprint(copy)
    flip_last_byte(copy)
    assert weights.fingerprint(original) != weights.fingerprint(copy)


def test_what_has_no_fingerprint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"weights='{tmp_path}/none' does not exist: "):
        weights.fingerprint(tmp_path / "none")
    with pytest.raises(ValueError, match=rf"weights='{tmp_path}' is a directory without a check"):
        weights.fingerprint(tmp_path)


def test_an_array_in_two_shards_is_read_from_the_one_of_the_index(tmp_path):
    whole = sources.read(sources.save_timm(tmp_path / "whole", "vit_token"), sources.vit())
    index = shard(tmp_path)
    second = tmp_path / "model-00002-of-00002.safetensors"
    save_file(load_file(second) | {"head.bias": np.ones(7, "f4")}, second)
    chex.assert_trees_all_equal(sources.read(index, sources.vit()), whole)


def flip_last_byte(file):
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"<!DOCTYPE html>",
            r"is neither an npz nor a safetensors .*starts with b'<!DOCTYPE html>'",
        ),
        (b"", "has 0 bytes"),
        (b"\x93NUMPY\x01\x00", "is neither"),
        (b"\xff" * 8 + b"{", "is a broken safetensors file"),
        (b"PK\x05\x06" + bytes(18), "is an empty npz"),
        (b'{"model_type": "vit"}', "is neither"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab", "run `git lfs pull`"),
    ],
)
def test_files_that_are_not_weights_are_refused(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        match(tmp_path / "file")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights='.*none' does not exist"):
        match(tmp_path / "none")


def test_a_file_is_read_array_by_array(tmp_path):
    """A mapped file would count as the host's memory."""
    file = sources.save_timm(tmp_path / "file", "vit_token")
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux says what is mapped")
    with match(file).file.open() as read:
        read("head.bias")
        assert str(file) not in maps.read_text()


def test_other_archives_and_directories(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(ValueError, match="is a zip file but not an npz"):
        match(tmp_path / "zip")
    with pytest.raises(ValueError, match="is a directory without a checkpoint"):
        match(tmp_path)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_other_floats_become_float32(tmp_path, dtype):
    state = {k: np.ascontiguousarray(x, dtype) for k, x in sources.timm_state("vit_token").items()}
    save_file(state, tmp_path / "file")
    number, name = len(state), np.dtype(dtype).name
    assert (
        match(tmp_path / "file")
        .describe()
        .endswith(f"{number} of {number} arrays are stored as {name}, read as float32")
    )
    variables = sources.read(tmp_path / "file", sources.vit())
    bias = variables["params"]["head"]["bias"]
    assert bias.dtype == np.float32
    np.testing.assert_array_equal(bias, state["head.bias"].astype(np.float32))


def test_bfloat16_in_an_npz(tmp_path):
    """numpy has no bfloat16 and saves it as any two bytes."""
    augreg = sources.arrays(sources.GOLDEN / "augreg.npz")
    np.savez(tmp_path / "file", **{k: x.astype(jnp.bfloat16) for k, x in augreg.items()})
    model = sources.vit(dim=24, depth=2, mlp_dim=48)
    matched = weights.match(tmp_path / "file.npz", model, sources.shapes(model))
    assert "40 of 40 arrays are stored as bfloat16" in matched.describe()
    bias = dict(matched.read())["params/head/bias"]
    np.testing.assert_allclose(bias, augreg["head/bias"], rtol=0.01)
    pairs = np.zeros(7, [("a", "i1"), ("b", "i1")])  # two bytes, too
    np.savez(tmp_path / "pairs", **augreg | {"head/bias": pairs})
    with pytest.raises(ValueError, match=r"head/bias \(void16\)"):
        weights.match(tmp_path / "pairs.npz", model, sources.shapes(model))


def test_names_in_a_wrapper_and_an_empty_path(tmp_path):
    state = sources.timm_state("vit_token")
    save_file({f"module.{k}": np.ascontiguousarray(x) for k, x in state.items()}, tmp_path / "file")
    with pytest.raises(
        ValueError, match=r"save it without the prefix 'module\.' that all names begin with"
    ):
        match(tmp_path / "file")
    with pytest.raises(ValueError, match=r"weights='': give the path"):
        match("")
