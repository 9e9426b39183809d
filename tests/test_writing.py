"""Tests of pnoise_jax.writing."""

import os
import pathlib

import pytest

from pnoise_jax import writing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "a"
    writing.replace_file(file, "old\ud800")
    assert file.read_bytes() == b"old\\ud800"

    def full(old, new):
        assert old.read_bytes() == b"new"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        writing.replace_file(file, b"new")
    assert file.read_bytes() == b"old\\ud800"
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_file_does_not_replace_another(tmp_path):
    writing.create_file(tmp_path / "a", "first")
    with pytest.raises(FileExistsError):
        writing.create_file(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("below", [".", "run", "deep/run"])
def test_a_directory_where_a_file_is(tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"^--workdir='x' cannot be written \(.* a file\)"):
        writing.make_directory(tmp_path / "file" / below, named="--workdir='x'")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_through_a_broken_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(NotADirectoryError, match="a link that leads nowhere"):
        writing.make_directory(tmp_path / "link", named="--workdir='x'")


@pytest.mark.parametrize("url", ["gs://bucket/run", "S3://bucket", pathlib.Path("gs://bucket/run")])
def test_a_url_is_refused_as_a_directory(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^--out='x' is a URL, not a path on .* with gcsfuse$"):
        writing.make_directory(pathlib.Path(url), named="--out='x'")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["/tmp/gs://x", "a:/b", "run:2/b", "hf_hub:a/b", "1:/x", "~/a"])
def test_paths_that_are_not_urls(path):
    assert not writing.is_url(path)


def _make_directory(path):
    path.mkdir()


def _make_fifo(path):
    os.mkfifo(path)


def _make_broken_link(path):
    path.symlink_to("gone")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (_make_directory, "a directory"),
        (_make_fifo, "not a regular file"),
        (_make_broken_link, "not a regular file"),
    ],
)
def test_something_else_in_the_place_of_a_file(tmp_path, make, kind):
    make(tmp_path / "evaluation.json")
    with pytest.raises(OSError, match=f"^--workdir='x': .*evaluation.json is {kind}, but a file"):
        writing.require_places(tmp_path, named="--workdir='x'", files=["a", "evaluation.json"])


def test_a_file_in_the_place_of_a_directory(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(NotADirectoryError, match="checkpoints is a file, but a directory"):
        writing.require_places(tmp_path, named="--workdir='x'", directories=["checkpoints"])


def test_what_may_not_be_written_is_named(unprivileged):
    directory, as_other = unprivileged
    (directory / "metrics.jsonl").write_text("")
    (directory / "metrics.jsonl").chmod(0o400)
    (directory / "checkpoints").mkdir(mode=0)
    directory.chmod(0o555)

    def check():
        for what in ({"files": ["metrics.jsonl"]}, {"directories": ["checkpoints"]}):
            with pytest.raises(PermissionError, match="cannot be read and written"):
                writing.require_places(directory, named="--workdir='x'", **what)
        with pytest.raises(OSError, match=r"^--out='x' cannot be written \(Permission denied\)"):
            writing.make_directory(directory, named="--out='x'")

    as_other(check)
    directory.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("folder/a b", "folder_a_b"),
        ("../../etc", "etc"),
        ("\x1b[31m\n\u202e\ud800", "31m"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("$(rm -rf ~)", "(rm_-rf_)"),
        ("", "_"),
        (".hidden", "hidden"),
    ],
)
def test_file_names(text, name):
    assert writing.file_name(text) == name


def test_a_file_name_is_short_in_bytes():
    name = writing.file_name("\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 200)
    assert len(name.encode()) <= 100
    assert set(name) == {"\N{CJK UNIFIED IDEOGRAPH-4E2D}"}


FORMULAS = ['=HYPERLINK("http://evil")', "+1+1", "-1+1", "@SUM(A1)", "\t=1", "'quoted", "'=x"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text):
    written = writing.csv_text(["name"], [{"name": text}])
    cell = written.split("\n", 1)[1].lstrip('"')
    assert cell.startswith("'")
    assert writing.csv_rows(written.splitlines(keepends=True)) == [{"name": text}]


@pytest.mark.parametrize("value", ["-1.5", "1e-3", "plain", "", "a=b", -2, None, "-inf"])
def test_numbers_and_words_stay_as_they_are(value):
    written = writing.csv_text(["a", "b"], [{"a": value, "b": 1}])
    assert written == f"a,b\n{'' if value is None else value},1\n"


def test_a_new_file_appears_when_it_is_whole(tmp_path):
    out = tmp_path / "out"
    with writing.creating(out) as temporary:
        temporary.write_text("whole")
        assert not out.exists()
    assert out.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [out]


def write_new(out, meanwhile):
    with writing.creating(out) as temporary:
        temporary.write_text("mine")
        meanwhile()


def test_a_file_that_was_not_finished_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_new(tmp_path / "out", lambda: 1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appeared_meanwhile_stays(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(FileExistsError):
        write_new(out, lambda: out.write_text("another's"))
    assert out.read_text() == "another's"
    assert list(tmp_path.iterdir()) == [out]


def fail_below(directory, *files):
    with writing.removing_empty(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for file in files:
            file.touch()
        raise ValueError("wrong")


def test_directories_that_a_failed_block_leaves_empty_are_removed(tmp_path):
    with pytest.raises(ValueError, match="wrong"):
        fail_below(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_directories_with_content_and_existing_ones_stay(tmp_path):
    (tmp_path / "before").mkdir()
    with pytest.raises(ValueError, match="wrong"):
        fail_below(tmp_path / "before")
    with pytest.raises(ValueError, match="wrong"):
        fail_below(tmp_path / "a" / "b", tmp_path / "a" / "file")
    with writing.removing_empty(tmp_path / "c"):
        (tmp_path / "c").mkdir()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "before", "c", "file"]


def test_a_file_without_a_directory_is_refused(tmp_path):
    writing.require_file_place(tmp_path / "x.json", named="--out")
    with pytest.raises(NotADirectoryError, match=r"--out: there is no directory .*: create it"):
        writing.require_file_place(tmp_path / "none" / "x.json", named="--out")
    with pytest.raises(OSError, match=r"--out: .* is a directory, but a file of that name"):
        writing.require_file_place(tmp_path, named="--out")
