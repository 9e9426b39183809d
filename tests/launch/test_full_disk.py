"""A file system that is really full: the run ends, and resumes once there is room."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.launch import command, full_disk

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def may_mount(directory):
    try:
        mount = ["mount", "-t", "tmpfs", "none", directory]
        return not subprocess.run([*NAMESPACE, *mount], capture_output=True, check=False).returncode
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_the_same_command_resumes_it(data_dir, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if not may_mount(small):
        pytest.skip("no file system can be mounted here")
    straight = tmp_path / "straight"
    code, _, errors = command.run("train", *full_disk.arguments(straight, data_dir))
    assert code == 0, errors
    expected = json.loads((straight / "checkpoints" / "60" / "arrays" / "metadata").read_text())
    done = subprocess.run(
        [*NAMESPACE, sys.executable, "-m", "tests.launch.full_disk", small, data_dir],
        capture_output=True,
        text=True,
        check=False,
        cwd=pathlib.Path(__file__).parents[2],
        env=command.ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    tries = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(tries) == len(full_disk.TRIES)
    for outcome in tries:
        assert outcome["code"] == 1, outcome
        assert "Make room" in outcome["errors"]
        assert "start the same command again" in outcome["errors"]
        # A thread of Orbax may print a traceback, but the last line is ours.
        assert outcome["errors"].rstrip().endswith("(--traceback shows where)")
        assert outcome["later_code"] == 0, outcome["later"]
        assert "resuming from the checkpoint of step" in outcome["later"]
        assert outcome["checksums"] == expected
