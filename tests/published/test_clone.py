"""Which directories are accepted as the published code; tiny files stand in for it."""

import hashlib
import subprocess

import pytest

from tests.published import clone, comparison

DIGESTS = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("Main.py", "ViT.py")}


@pytest.fixture
def directory(tmp_path):
    """A directory whose files have the digests above."""
    folder = tmp_path / "clone" / clone.FOLDER
    folder.mkdir(parents=True)
    for name in DIGESTS:
        (folder / name).write_text(name)
    return tmp_path / "clone"


def git(directory, *arguments):
    """Runs git there; returns its output."""
    identity = ("-c", "user.name=n", "-c", "user.email=e")
    command = ["git", "-C", str(directory), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def commit_all(directory):
    """Commits all files; returns the commit."""
    git(directory, "init", "--quiet")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message=x")
    return git(directory, "rev-parse", "HEAD")


def test_the_known_files_are_accepted(directory):
    folder = clone.code_folder(directory, DIGESTS)
    assert folder.is_dir()
    assert folder.name == " NoisyViT-OptimalQ"


def test_a_file_that_differs_is_named_with_its_digest(directory):
    (directory / clone.FOLDER / "ViT.py").write_text("other")
    with pytest.raises(clone.UnknownCodeError) as error:
        clone.code_folder(directory, DIGESTS)
    message = str(error.value)
    digest = hashlib.sha256(b"other").hexdigest()
    assert f"ViT.py has the SHA-256 {digest}, expected {DIGESTS['ViT.py']}" in message
    assert "Main.py" not in message
    assert f"is not the published code at commit {clone.COMMIT}" in message
    assert "not a git clone, so it records no commit" in message


def test_a_missing_file_is_named(directory):
    (directory / clone.FOLDER / "Main.py").unlink()
    with pytest.raises(clone.UnknownCodeError, match=r"differ: Main\.py is missing\. "):
        clone.code_folder(directory, DIGESTS)


def test_another_commit_is_named(directory):
    (directory / clone.FOLDER / "ViT.py").write_text("other")
    commit = commit_all(directory)
    with pytest.raises(clone.UnknownCodeError, match=f"checked out there is {commit}"):
        clone.code_folder(directory, DIGESTS)


def test_changed_files_at_the_right_commit_are_reported_as_such(directory, monkeypatch):
    monkeypatch.setattr(clone, "COMMIT", commit_all(directory))
    assert clone.code_folder(directory, DIGESTS).is_dir()
    (directory / clone.FOLDER / "ViT.py").write_text("other")
    with pytest.raises(clone.UnknownCodeError, match="is checked out, but files have been changed"):
        clone.code_folder(directory, DIGESTS)


def test_the_commit_of_an_enclosing_repository_is_not_reported(directory):
    (directory / clone.FOLDER / "ViT.py").write_text("other")
    commit = commit_all(directory.parent)
    with pytest.raises(clone.UnknownCodeError, match="records no commit") as error:
        clone.code_folder(directory, DIGESTS)
    assert commit not in str(error.value)


def test_the_program_refuses_another_directory_before_it_does_anything(directory, capsys):
    arguments = ("--workdir=/nowhere", f"--clone={directory}", "--torch_python=/nowhere")
    with pytest.raises(SystemExit):
        comparison.main(arguments)
    assert "Main.py has the SHA-256" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        comparison.main((arguments[0], f"--clone={directory / clone.FOLDER}", arguments[2]))
    assert "has no folder ' NoisyViT-OptimalQ'" in capsys.readouterr().err
