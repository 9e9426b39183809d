"""The page on your own models and noises, as a reader uses it: files in a folder, and commands."""

import json
import pathlib
import re
import shlex
import sys

import pytest

from tests.launch import command

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FILES = {re.match(r"# (\w+\.py)\n", block)[1]: block for block in BLOCKS if block.startswith("# ")}
SNIPPETS = [block for block in BLOCKS if not block.startswith("# ")]
COMMANDS = re.search(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[1].splitlines()


def pnoise(folder, line, *more, path=()):
    """Runs a command of the page in a folder: its exit code, its output and its errors."""
    _, *arguments = shlex.split(line)
    return command.run_forked("launch", *arguments, *more, directory=folder, path=path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of the page, after its first command."""
    path = tmp_path_factory.mktemp("own")
    for name, content in FILES.items():
        (path / name).write_text(content)
    code, printed, errors = pnoise(path, COMMANDS[0])
    assert code == 0, errors
    assert "step 40/40" in printed
    return path


def test_each_file_is_short():
    for name, content in FILES.items():
        code = [line for line in content.splitlines() if line and not line.startswith("#")]
        assert len(code) < 30, name


def test_every_command_of_the_page_is_tested():
    assert [line.split()[1] for line in COMMANDS] == ["train", "evaluate", "audit", "sweep"]


def test_a_run_is_evaluated_and_resumed_and_needs_its_modules(folder):
    assert set(json.loads((folder / "run" / "modules.json").read_text())) == {
        "model", "noise", "data", "task",
    }  # fmt: skip
    code, _, errors = pnoise(folder, COMMANDS[1])
    assert code == 0, errors
    code, printed, errors = pnoise(folder, COMMANDS[0])
    assert code == 0, errors
    assert "the same measurement as before, with the same numbers" in printed
    code, _, errors = pnoise(folder, "pnoise evaluate --workdir run")
    assert code == 64
    assert "on PYTHONPATH, or give --config" in errors
    assert "Traceback" not in errors
    code, _, errors = pnoise(folder, "pnoise evaluate --workdir run", path=[folder])
    assert code == 0, errors


def test_a_run_is_audited(folder):
    code, _, errors = pnoise(folder, COMMANDS[2])
    assert code == 0, errors
    audit = json.loads((folder / "run" / "audit" / "audit.json").read_text())
    assert audit["verdict"]["kind"] == "independent"  # its noise mixes no examples


def test_a_sweep_trains_them(folder):
    code, _, errors = pnoise(folder, COMMANDS[3], "--config.steps=5")
    assert code == 0, errors
    assert len((folder / "variants" / "results.csv").read_text().splitlines()) > 4


def test_the_snippets_run(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    for code in SNIPPETS:
        exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})
    sys.modules.pop("my_model", None)


def test_a_run_whose_model_has_changed_since_says_so(folder, tmp_path):
    """Its parameters no longer fit the checkpoint; the file is put back afterwards."""
    file = folder / "my_model.py"
    file.write_text(FILES["my_model.py"].replace('name="embed"', 'name="patches"'))
    try:
        code, _, errors = pnoise(folder, "pnoise evaluate --config config.py --workdir run")
    finally:
        file.write_text(FILES["my_model.py"])
    assert code == 64
    assert "has a different state from this program's" in errors
    assert "Traceback" not in errors
