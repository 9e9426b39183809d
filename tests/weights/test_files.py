"""Formats by content, and files that are none."""

import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from pnoise_jax import weights
from tests.weights import sources


def match(file):
    model = sources.vit()
    return weights.match(file, model, sources.shapes(model))


def test_the_suffix_does_not_matter(tmp_path):
    file = tmp_path / "weights.pth"
    sources.save_timm(file, "vit_token")
    assert match(file).file.kind == "safetensors"
    model = sources.vit(dim=24, depth=2, mlp_dim=48)
    (tmp_path / "weights.bin").write_bytes((sources.GOLDEN / "augreg.npz").read_bytes())
    found = weights.match(tmp_path / "weights.bin", model, sources.shapes(model))
    assert found.file.kind == "npz"


@pytest.mark.parametrize("more", range(1, 129, 8))
def test_the_header_of_a_safetensors_file_may_begin_as_a_pickle(tmp_path, more):
    """One of these has a length whose lowest byte is 0x80."""
    state = {k: np.ascontiguousarray(x) for k, x in sources.timm_state("vit_token").items()}
    save_file(state, tmp_path / "file", metadata={"note": "x" * more})
    assert match(tmp_path / "file").file.kind == "safetensors"


@pytest.mark.parametrize(("protocol", "zipped"), [(0, False), (1, False), (2, False), (2, True)])
def test_a_pickle_is_refused_unread(tmp_path, protocol, zipped):
    """As torch.save writes it, now and before 1.6, and as pickle does by itself."""
    file = tmp_path / "model.pth"
    pickled = pickle.dumps(Explosive(), protocol=protocol)
    if zipped:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model/data.pkl", pickled)
    else:
        file.write_bytes(pickled)
    with pytest.raises(ValueError, match=r"is a pickle.*\n.*\n.*weights_only=True.*\n.*save_file"):
        match(file)


def test_an_npz_with_pickled_objects_is_refused_unread(tmp_path):
    file = tmp_path / "weights.npz"
    np.savez(file, **{"embedding/kernel": np.array([Explosive()], object)})
    with pytest.raises(ValueError, match=r"holds pickled objects \(embedding/kernel.npy\)"):
        match(file)


class Explosive:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("name", ["augreg.npz", "safetensors"])
def test_a_truncated_file_is_named_before_anything_is_read(tmp_path, name):
    whole = sources.GOLDEN / name
    if name == "safetensors":
        whole = sources.save_timm(tmp_path / "whole", "vit_token")
    file = tmp_path / "truncated"
    file.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(
        ValueError, match=rf"weights='{file}' is a broken .*the download was cut off"
    ):
        match(file)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_with_flipped_bytes_is_found_at_last_when_it_is_read(tmp_path, save):
    model = sources.vit(dim=24, depth=2, mlp_dim=48)
    file = tmp_path / "flipped"
    with file.open("wb") as stream:
        save(stream, **sources.arrays(sources.GOLDEN / "augreg.npz"))
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo("embedding/kernel.npy").header_offset
    data = bytearray(file.read_bytes())
    data[start + 8000] ^= 255
    file.write_bytes(data)
    found = weights.match(file, model, sources.shapes(model))
    with pytest.raises(ValueError, match=r"weights='.*flipped': a broken npz"):
        list(found.read())


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
    ],
)
def test_what_is_no_file_of_weights(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        match(tmp_path / "file")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights='.*none' does not exist"):
        match(tmp_path / "none")


def test_other_archives_and_directories(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(ValueError, match="is a zip file, but no npz"):
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
        .endswith(f"{number} of {number} arrays are {name} there, read as float32")
    )
    variables = sources.read(tmp_path / "file", sources.vit())
    bias = variables["params"]["head"]["bias"]
    assert bias.dtype == np.float32
    np.testing.assert_array_equal(bias, state["head.bias"].astype(np.float32))


def test_bfloat16_in_an_npz(tmp_path):
    """numpy knows no bfloat16 and saves two bytes of anything."""
    augreg = sources.arrays(sources.GOLDEN / "augreg.npz")
    np.savez(tmp_path / "file", **{k: x.astype(jnp.bfloat16) for k, x in augreg.items()})
    variables = sources.read(tmp_path / "file.npz", sources.vit(dim=24, depth=2, mlp_dim=48))
    np.testing.assert_allclose(variables["params"]["head"]["bias"], augreg["head/bias"], rtol=0.01)


def test_whole_numbers_are_no_weights(tmp_path):
    file = sources.save_timm(tmp_path / "file", "vit_token", **{"head.bias": np.arange(7)})
    with pytest.raises(ValueError, match=r"file': head.bias has dtype int64"):
        list(match(file).read())


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_are_no_numbers(tmp_path, wrong):
    bias = np.array([0, 0, 0, wrong, 0, 0, 0], "f4")
    file = sources.save_timm(tmp_path / "file", "vit_token", **{"head.bias": bias})
    with pytest.raises(ValueError, match=r"file': head\.bias holds NaN or infinite numbers"):
        list(match(file).read())


def test_a_member_of_an_npz_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("embedding/kernel.npy", b"")
    with pytest.raises(
        ValueError, match=r"holds embedding/kernel\.npy, which is no array as numpy"
    ):
        match(tmp_path / "file")


def test_names_in_a_wrapper_and_no_path(tmp_path):
    state = sources.timm_state("vit_token")
    save_file({f"module.{k}": np.ascontiguousarray(x) for k, x in state.items()}, tmp_path / "file")
    with pytest.raises(
        ValueError, match=r"save it without the 'module\.' that all names begin with"
    ):
        match(tmp_path / "file")
    with pytest.raises(ValueError, match=r"weights='': give the path"):
        match("")
