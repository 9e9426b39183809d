"""Files that are damaged or that change, and values that cannot be weights."""

import errno
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from pnoise_jax import weights
from pnoise_jax.weights.formats import safetensors_file
from tests.weights import sources


def match(file):
    model = sources.vit()
    return weights.match(file, model, sources.shapes(model))


@pytest.mark.parametrize("name", ["augreg.npz", "safetensors"])
def test_a_truncated_file_is_named_before_anything_is_read(tmp_path, name):
    whole = sources.GOLDEN / name
    if name == "safetensors":
        whole = sources.save_timm(tmp_path / "whole", "vit_token")
    file = tmp_path / "truncated"
    file.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(
        ValueError,
        match=rf"weights='{file}' is a broken .*: download or copy it again, it is damaged",
    ):
        match(file)


@pytest.mark.parametrize(
    "packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_flipped_bytes_in_an_npz_are_found_when_it_is_read(tmp_path, packing):
    """Each packing raises an error of another type."""
    model = sources.vit(dim=24, depth=2, mlp_dim=48)
    file = tmp_path / "flipped"
    with zipfile.ZipFile(sources.GOLDEN / "augreg.npz") as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        info = archive.getinfo("embedding/kernel.npy")
    data = bytearray(file.read_bytes())
    for place in (info.compress_size // 2, info.compress_size - 100):
        data[info.header_offset + place] ^= 255
    file.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"weights='.*flipped'(?s:.*)embedding/kernel.*: download or copy it again"
    ):
        list(weights.match(file, model, sources.shapes(model)).read())


@pytest.mark.parametrize(
    ("local", "central", "value", "said"), [(6, 8, 1, "encrypted"), (8, 10, 9, "not supported")]
)
def test_an_npz_that_numpy_cannot_have_written(tmp_path, local, central, value, said):
    """With a password, or with a packing that Python does not know."""
    data = bytearray((sources.GOLDEN / "augreg.npz").read_bytes())
    with zipfile.ZipFile(sources.GOLDEN / "augreg.npz") as archive:
        first = archive.filelist[0]
        data[first.header_offset + local] = data[archive.start_dir + central] = value
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ValueError, match=rf"is not an array as numpy\.savez writes it \(.*{said}"):
        match(tmp_path / "file")


def test_a_member_of_an_npz_that_is_not_an_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr("embedding/kernel.npy", b"")
    with pytest.raises(
        ValueError, match=r"contains embedding/kernel\.npy, which is not an array as numpy"
    ):
        match(tmp_path / "file")


@pytest.mark.parametrize("format_", ["npz", "safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {k: v for k, v in x.items() if "bias" not in k}, r"bias cannot be read from th"),
        (lambda x: {k: v[..., :1] for k, v in x.items()}, r"now and had \(.*: the file has chang"),
        (None, "can no longer be opened as "),
    ],
)
def test_a_file_that_changes_after_it_was_matched(tmp_path, format_, change, message):
    file = tmp_path / "file"

    def write(arrays):
        with file.open("wb") as stream:
            if format_ == "npz":
                np.savez(stream, **arrays)
            else:
                stream.write(save({k: np.ascontiguousarray(x) for k, x in arrays.items()}))

    npz = format_ == "npz"
    arrays = (
        sources.arrays(sources.GOLDEN / "augreg.npz") if npz else sources.timm_state("vit_token")
    )
    model = sources.vit(**{"dim": 24, "depth": 2, "mlp_dim": 48} if npz else {})
    write(arrays)
    matched = weights.match(file, model, sources.shapes(model))
    if change is None:
        file.write_bytes(file.read_bytes()[:-50])
    else:
        write(change(arrays))
    with pytest.raises(ValueError, match=rf"weights='{file}': .*{message}"):
        list(matched.read())


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (MemoryError("full"), MemoryError, "^full$"),
        (
            OSError(errno.EMFILE, "Too many open files"),
            OSError,
            r"^weights=.*file' cannot be read \(Too many open",
        ),
        (
            RuntimeError("read (os error 5)"),
            OSError,
            r"^weights=.*file' cannot be read \(Input/output err",
        ),
        (OSError(errno.EINVAL, "Invalid argument"), ValueError, "download or copy it again"),
        (OSError("Invalid data stream"), ValueError, "download or copy it again"),  # from bzip2
    ],
)
def test_failures_of_the_machine_are_not_called_damage(
    tmp_path, monkeypatch, raised, kind, message
):
    file = sources.save_timm(tmp_path / "file", "vit_token")
    matched = match(file)

    def refuse(_):
        raise raised

    monkeypatch.setattr(safetensors_file, "_safe_open", refuse)
    with pytest.raises(kind, match=message) as caught:
        list(matched.read())
    assert type(caught.value) is kind


def test_dtypes_that_cannot_be_weights_are_refused(tmp_path):
    """Integers, and 8-bit floats, which numpy lacks."""
    file = sources.save_timm(tmp_path / "file", "vit_token", **{"head.bias": np.arange(7)})
    with pytest.raises(ValueError, match=r"head\.bias \(I64\)"):
        match(file)
    eight_bits = np.zeros(7, jnp.float8_e4m3fn)
    file = sources.save_timm(tmp_path / "file", "vit_token", **{"head.bias": eight_bits})
    with pytest.raises(ValueError, match=r"head\.bias \(F8_E4M3\)"):
        match(file)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite_are_refused(tmp_path, wrong):
    """Or too large for float32."""
    bias = np.array([0, 0, 0, wrong, 0, 0, 0])
    file = sources.save_timm(tmp_path / "file", "vit_token", **{"head.bias": bias})
    with pytest.raises(
        ValueError, match=r"file': head\.bias contains NaN or values that are infin"
    ):
        list(match(file).read())


def test_each_block_of_a_stacked_array_is_checked_separately(tmp_path):
    """Checking all blocks for each of them would cost the square of the depth."""
    arrays = sources.arrays(sources.GOLDEN / "big_vision.npz")
    model = sources.vit(dim=24, depth=2, mlp_dim=48)
    bad = arrays["params/Transformer/encoderblock/MlpBlock_0/Dense_0/bias"].copy()
    bad[1, 0] = np.nan
    bad = {"params/Transformer/encoderblock/MlpBlock_0/Dense_0/bias": bad}
    np.savez(tmp_path / "file", **arrays | bad)
    entries = weights.match(tmp_path / "file.npz", model, sources.shapes(model)).entries
    first, second = (entries[f"params/block_{block}/mlp/fc1/bias"] for block in (1, 2))
    assert np.isfinite(first.read((arrays | bad).get)).all()
    with pytest.raises(ValueError, match="MlpBlock_0/Dense_0/bias contains NaN"):
        second.read((arrays | bad).get)
