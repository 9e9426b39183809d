"""Files made to do harm: to hang, to fill the memory, to run code, to control a terminal."""

import io
import json
import os
import pickle
import socket
import struct
import zipfile

import numpy as np
import pytest

from pnoise_jax import weights
from pnoise_jax.weights.adapt import resize
from pnoise_jax.weights.formats.detect import open_file
from tests.weights import sources

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
INDEX = "model.safetensors.index.json"


class Command:
    """Unpickling runs a command."""

    def __reduce__(self):
        return os.system, ("echo harm",)


def safetensors(header, body=b"\0" * 4, length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def npz(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def header_of(*shape, version=(1, 0), pad=0):
    stream = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": shape}
    if not pad:
        np.lib.format.write_array_header_1_0(stream, fields)
        return stream.getvalue()
    text = (repr(fields) + " " * pad + "\n").encode()
    return np.lib.format.magic(*version) + struct.pack("<I", len(text)) + text


def objects():
    stream = io.BytesIO()
    np.savez(stream, a=np.array([Command()], dtype=object))
    return stream.getvalue()


def index_of(where):
    return json.dumps({"weight_map": where}).encode()


HUGE = [2**62, 2**62]
FILES = {
    "length 2^63": (safetensors({"a": ONE}, length=2**63), "is a broken safetensors file"),
    "length 2^64": (safetensors({"a": ONE}, length=2**64 - 1), "is a broken safetensors file"),
    "overlap": (
        safetensors(
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            },
            b"\0" * 12,
        ),
        "is a broken safetensors file",
    ),
    "huge shape": (safetensors({"head.weight": ONE | {"shape": HUGE}}), "is a broken safetensors"),
    "huge array": (
        safetensors(
            {"head.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
        ),
        "is a broken safetensors file",
    ),
    "negative": (safetensors({"head.weight": ONE | {"shape": [-1]}}), "is a broken safetensors"),
    "deep": (safetensors(b'{"a":' + b"[" * 100_000, b""), "is a broken safetensors file"),
    "markup": (safetensors({"[/red]head[bold].weight": ONE}), r"\(\[/red\]head\[bold\]\.weight\)"),
    "many names": (
        safetensors(
            {
                f"block_{i}.w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                for i in range(20_000)
            },
            b"",
        ),
        "has 20000 arrays .* no naming scheme known",
    ),
    "long number": (
        safetensors({"blocks." + "9" * 5000 + ".norm1.weight": ONE}),
        r"1 unexpected: blocks\.9{113}… \(5020 characters\) \(1,\)",
    ),
    "long number of Google": (
        safetensors({f"Transformer/encoderblock_{'9' * 5000}/LayerNorm_0/scale": ONE}),
        r"has 1 array \(Transformer/encoderblock_9*… \(\d+ characters\)\) in no naming",
    ),
    "number too large": (
        safetensors({"blocks.99999999999.norm1.weight": ONE}),
        r"1 unexpected: blocks\.99999999999\.norm1\.weight \(1,\)",
    ),
    "stage too large": (
        safetensors({f"layer99999999999.{'8' * 5000}.conv1.weight": ONE}),
        r"1 unexpected: layer99999999999\.8*…",
    ),
    "other digits": (safetensors({"blocks.٣.norm1.weight": ONE}), r"unexpected: blocks\.٣\.norm1"),
    "superscript": (
        safetensors({"blocks.0.norm1.weight": ONE, "blocks.².norm1.weight": ONE | {"shape": []}}),
        r"unexpected.*: blocks\.²\.norm1\.weight|is a broken safetensors",
    ),
    "scanned blocks without end": (
        safetensors(
            {
                "Transformer/encoderblock/LayerNorm_0/scale": {
                    "dtype": "F32",
                    "shape": [2**40, 0],
                    "data_offsets": [0, 0],
                }
            },
            b"",
        ),
        r"unexpected: Transformer/encoderblock/LayerNorm_0/scale \(1099511627776, 0\)",
    ),
    "objects": (objects(), r"contains pickled objects \(a\.npy\)"),
    "pickle": (pickle.dumps(Command(), 2), "is a pickle"),
    "old pickle": (pickle.dumps(Command(), 0), "is a pickle"),
    "torch": (npz({"archive/data.pkl": pickle.dumps(Command())}), "is a pickle"),
    "lie": (npz({"a.npy": header_of(2**40)}), r"its header says 4398046511232 bytes, the archive"),
    "the other lie": (npz({"a.npy": header_of(1) + bytes(2**20)}), "its header says 132 byte"),
    "overflow": (npz({"a.npy": header_of(2**62, 2**62)}), "its header says"),
    "bomb": (
        npz({"embedding/kernel.npy": header_of(2**24) + bytes(2**26)}),
        r"has 1 array \(embedding/kernel\) in no naming scheme",
    ),
    "outside": (npz({"../../x.npy": b"abc"}), r"contains \.\./\.\./x\.npy, which is not an array"),
    "long header": (
        npz({"a.npy": header_of(1, version=(2, 0), pad=2**24)}),
        "is not an array as numpy.savez writes it",
    ),
}
INDICES = {
    "above": ("../file", "which is not a file beside it"),
    "absolute": ("/etc/passwd", "which is not a file beside it"),
    "parent": ("..", r"\.\. is a directory"),
    "itself": (INDEX, "is a broken safetensors file"),
    "here": (".", "which is not a file beside it"),
    "a number": (5, "which is not a file beside it"),
    "no name": ("", "a file without a name is a directory"),
    "not there": ("absent.safetensors", r"absent\.safetensors is not beside it: download it"),
    "link": ("link.safetensors", "is a broken safetensors file, link"),
    "fifo": ("fifo", r"fifo is a named pipe \(FIFO\), not a file"),
}


def match(file):
    model = sources.vit()
    return weights.match(file, model, sources.shapes(model))


@pytest.mark.parametrize("case", FILES)
def test_a_hostile_file_is_refused_by_name(tmp_path, case, capfd):
    content, message = FILES[case]
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^weights='{file}' (?s:.*){message}"):
        match(file)
    assert "harm" not in capfd.readouterr().out


@pytest.mark.parametrize("case", INDICES)
def test_a_hostile_index_is_refused_by_name(tmp_path, case):
    where, message = INDICES[case]
    (tmp_path / "link.safetensors").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / INDEX).write_bytes(index_of({"a": where}))
    with pytest.raises(ValueError, match=rf"^weights='{tmp_path / INDEX}' .*{message}"):
        match(tmp_path / INDEX)


def test_a_malformed_index_is_refused(tmp_path):
    (tmp_path / INDEX).write_bytes(index_of(["a"]))
    with pytest.raises(ValueError, match="is neither an npz nor a safetensors file"):
        match(tmp_path / INDEX)


@pytest.mark.parametrize(
    "escape", ["\x1b[2J\x1b]0;title\x07", "\u202e\u2066", "\r", "\n  44 of 44", "\x9b31m", "\u2028"]
)
@pytest.mark.parametrize("where", ["unknown", "unexpected", "npz", "index", "architecture"])
def test_names_never_reach_a_terminal_raw(tmp_path, escape, where):
    name = f"blocks.0.norm1.{escape}weight"
    file = tmp_path / "file"
    if where == "npz":
        file.write_bytes(npz({f"{name}.npy": b"abc"}))
    elif where == "index":
        file.write_bytes(index_of({name: f"../{escape}"}))
    elif where == "architecture":
        sources.save_timm(file, "vit_token")
        said = {"architecture": f"resnet{escape}", "model_args": {f"x{escape}": escape}}
        (tmp_path / "config.json").write_text(json.dumps(said))
        assert match(file).describe().isprintable()
        return
    else:
        named = {"blocks.0.norm1.weight": ONE} if where == "unexpected" else {}
        two = {name: {"dtype": "F32", "shape": [0], "data_offsets": [4, 4]}}
        file.write_bytes(
            safetensors(named | two, b"\0" * (4 if named else 0))
            if named
            else safetensors({name: ONE})
        )
    with pytest.raises(ValueError, match="weights=") as caught:
        match(file)
    lines = str(caught.value).split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("  44 of 44") for line in lines)


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listening:
        place = os.getcwd()
        os.chdir(path.parent)  # its whole path may be too long for a socket's
        try:
            listening.bind(path.name)
        finally:
            os.chdir(place)


def make_link_to_device(path):
    path.symlink_to("/dev/zero")


SPECIAL = [
    (make_fifo, r"a named pipe \(FIFO\)"),
    (make_socket, "a socket"),
    (make_link_to_device, "a device"),
]


@pytest.mark.parametrize(("make", "kind"), SPECIAL)
def test_special_files_are_refused_before_they_are_opened(tmp_path, make, kind):
    make(tmp_path / "file.safetensors")
    for call in (match, weights.fingerprint):
        with pytest.raises(ValueError, match=rf"file\.safetensors' is {kind}, not a file: give"):
            call(tmp_path / "file.safetensors")


@pytest.mark.parametrize(("make", "kind"), SPECIAL)
def test_a_special_file_as_config_json_is_refused(tmp_path, make, kind):
    file = sources.save_timm(tmp_path / "model.safetensors", "vit_token")
    make(tmp_path / "config.json")
    with pytest.raises(ValueError, match=rf"config\.json beside it, which is {kind}, not a file"):
        match(file)


@pytest.mark.parametrize(("make", "kind"), SPECIAL)
def test_special_files_in_a_run_are_refused(tmp_path, make, kind):
    checkpoint = tmp_path / "run" / "checkpoints" / "12"
    (checkpoint / "state").mkdir(parents=True)
    (checkpoint / "arrays").mkdir()
    make(checkpoint / "arrays" / "metadata")
    with pytest.raises(ValueError, match=rf"run' is {kind}, not a file"):
        match(tmp_path / "run")


def test_a_huge_config_json_is_refused(tmp_path):
    file = sources.save_timm(tmp_path / "model.safetensors", "vit_token")
    with (tmp_path / "config.json").open("wb") as stream:
        stream.truncate(2**30)
    with pytest.raises(ValueError, match=r"config\.json beside it, which has 1073741824 bytes; at"):
        match(file)


def test_a_directory_whose_name_only_looks_like_a_step(tmp_path):
    (tmp_path / "1²").mkdir()
    with pytest.raises(ValueError, match="is a directory without a checkpoint"):
        match(tmp_path)


def test_a_table_of_windows_larger_than_any_image():
    assert not resize.have_one_window_size([(2**29, 2**29), (2**28, 2**28)])


def test_only_the_start_of_a_huge_header_is_read(tmp_path, monkeypatch):
    """Of an array of one number, whose header has 4 MiB."""
    (tmp_path / "file").write_bytes(npz({"a.npy": header_of(1, version=(2, 0), pad=2**22)}))
    sizes = []
    read = zipfile.ZipExtFile.read

    def counted(self, n=-1):
        sizes.append(n)
        return read(self, n)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    with pytest.raises(ValueError, match="is not an array as numpy"):
        open_file(tmp_path / "file")
    assert sizes == [2**17]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_arrays_are_refused_and_messages_stay_short(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        for _ in range(2):
            archive.writestr("head/bias.npy", header_of(1) + b"\0" * 4)
    with pytest.raises(ValueError, match=r"contains head/bias\.npy twice, and nothing tells which"):
        open_file(tmp_path / "file")
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 5000},)}}\n".encode()
    content = np.lib.format.magic(1, 0) + struct.pack("<H", len(header)) + header
    (tmp_path / "file").write_bytes(npz({"a.npy": content}))
    with pytest.raises(ValueError, match="is not an array as numpy") as error:
        open_file(tmp_path / "file")
    assert len(str(error.value)) < 500
