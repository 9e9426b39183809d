"""Programs restart once with huge pages: in real processes, and what decides whether they do."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from launch import huge_pages, programs

ROOT = pathlib.Path(__file__).parents[2]
CPU = {"JAX_PLATFORMS": "cpu"}
PROBE = """
import json, multiprocessing, os, resource, signal, sys, time
from . import huge_pages

def look():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = bytearray(b"x") * (64 << 20)
    return {
        "faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before,
        "in_use": huge_pages.in_use(),
        "pid": os.getpid(),
        "arguments": sys.argv[1:],
        "environment": dict(os.environ),
        "dev_mode": sys.flags.dev_mode,
        "options": sys._xoptions,
        "warnings": sys.warnoptions,
        "ignores_sigint": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "directory": os.getcwd(),
    }

def show():
    print(json.dumps(look()))

if __name__ == "__main__":
    seen = look()
    if "--read" in sys.argv:
        seen["stdin"] = sys.stdin.read()
    if "--workers" in sys.argv:
        for method in ("spawn", "fork", "forkserver"):
            with multiprocessing.get_context(method).Pool(1) as pool:
                seen[method] = pool.apply(look)
    print(json.dumps(seen), flush=True)
    if "--wait" in sys.argv:
        time.sleep(60)
    sys.exit(int(sys.argv[-1]) if sys.argv[-1:][0].isdigit() else 0)
"""

in_processes = pytest.mark.skipif(
    not huge_pages.help_here(CPU), reason="glibc 2.35 and Linux that gives huge pages on request"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a small program in a package that starts as the real one does."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "launch").mkdir()
    for name in ("__init__", "huge_pages", "programs", "xla_options"):
        shutil.copy(ROOT / "launch" / f"{name}.py", folder / "launch")
    (folder / "launch" / "probe.py").write_text(PROBE)
    (folder / "other.py").write_text(
        "import runpy\nrunpy.run_module('launch.probe', {}, '__main__', True)"
    )
    (folder / "pnoise").write_text(
        "from launch import huge_pages\nhuge_pages.start_again()\n"
        "import runpy\nrunpy.run_module('launch.probe', {}, '__main__', True)"
    )
    return folder


def inherited():
    return {k: v for k, v in os.environ.items() if not k.startswith(("JAX", "GLIBC", "COV"))}


def run(folder, *command, environment=None, **options):
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=inherited() | CPU | (environment or {}),
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def look(folder, *command, **options):
    done = run(folder, *command, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@in_processes
def test_arrays_take_few_page_faults_and_nothing_else_changes(folder):
    arguments = ("--x=a b", "", "é\udc80", "-m", "--", "*", "--read", "0")
    flags = ("-W", "error::ImportWarning", "-X", "dev", "-X", "mine=1", "-m", "launch.probe")
    restarted = look(folder, *flags, *arguments, input="one\ntwo")
    plain = look(folder, *flags, *arguments, input="one\ntwo", environment={huge_pages.SWITCH: "0"})
    assert restarted["in_use"]
    assert not plain["in_use"]
    assert restarted["faults"] < plain["faults"] / 20
    assert restarted["environment"] == {
        k: v for k, v in plain["environment"].items() if k != huge_pages.SWITCH
    }
    same = ("arguments", "dev_mode", "options", "warnings", "ignores_sigint", "directory", "stdin")
    assert {name: restarted[name] for name in same} == {name: plain[name] for name in same}
    assert restarted["arguments"] == list(arguments)


@in_processes
@pytest.mark.parametrize("code", ["0", "1", "75"])
def test_the_exit_code_is_the_programs(folder, code):
    assert run(folder, "-m", "launch.probe", code).returncode == int(code)


@in_processes
def test_a_signal_reaches_the_restarted_process(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.probe", "--wait"],
        cwd=folder,
        env=inherited() | CPU,
        stdout=subprocess.PIPE,
        text=True,
    )
    seen = json.loads(process.stdout.readline())
    assert seen["in_use"]
    assert seen["pid"] == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == -signal.SIGTERM
    process.stdout.close()


@in_processes
def test_an_ignored_signal_stays_ignored(folder):
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        seen = look(folder, "-m", "launch.probe")
    finally:
        signal.signal(signal.SIGINT, previous)
    assert seen["in_use"]
    assert seen["ignores_sigint"]


@in_processes
def test_the_installed_script_restarts_as_well(folder):
    seen = look(folder, folder / "pnoise", "--x=1")
    assert seen["in_use"]
    assert seen["arguments"] == ["--x=1"]


@in_processes
def test_workers_do_not_restart(folder):
    seen = look(folder, "-m", "launch.probe", "--workers")
    for method in ("spawn", "fork", "forkserver"):
        assert not {"GLIBC_TUNABLES", "_PNOISE_STARTED_AGAIN"} & seen[method]["environment"].keys()
    assert seen["spawn"]["pid"] != seen["pid"]
    assert not seen["spawn"]["in_use"]


@in_processes
@pytest.mark.parametrize(
    "command",
    [
        ("-c", "import sys; sys.argv = ['x']; from launch import probe; probe.show()"),
        ("-m", "other"),
        ("other.py",),
    ],
    ids=["text", "module", "script"],
)
def test_other_programs_that_import_ours_do_not_restart(folder, command):
    assert not look(folder, *command)["in_use"]


@in_processes
@pytest.mark.parametrize(
    "environment",
    [
        {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"},
        {"JAX_PLATFORMS": "cuda,cpu"},
        {"PNOISE_HUGE_PAGES": "off"},
    ],
    ids=str,
)
def test_the_users_choice_is_kept(folder, environment):
    seen = look(folder, "-m", "launch.probe", environment=environment)
    assert not seen["in_use"]
    assert environment.items() <= seen["environment"].items()


@in_processes
def test_a_program_restarts_only_once(folder):
    """Also if the variables are lost, or come from another process."""
    seen = look(folder, "-m", "launch.probe", environment={"_PNOISE_STARTED_AGAIN": "1"})
    assert seen["in_use"]
    dropping = "env -u GLIBC_TUNABLES " + sys.executable  # as Linux does for privileged programs
    (folder / "python").write_text(f'#!/bin/sh\nexec {dropping} "$@"\n')
    (folder / "python").chmod(0o755)
    code = (
        "import sys, runpy; sys.executable = sys.argv[1]; sys.argv[:] = ['-m'];"
        "sys.orig_argv[:] = [sys.executable, '-m', 'launch.probe']; import launch; print('no')"
    )
    seen = look(folder, "-c", code, str(folder / "python"))
    assert not seen["in_use"]
    assert "_PNOISE_STARTED_AGAIN" not in seen["environment"]


@in_processes
@pytest.mark.parametrize("watcher", [("pdb", "-c", "c", "-c", "q"), ("cProfile",)])
def test_debuggers_and_profilers_keep_their_process(folder, watcher):
    done = run(folder, "-m", *watcher, "pnoise", input="")
    assert '"in_use": false' in done.stdout


@pytest.mark.parametrize(
    ("command", "arguments", "expected"),
    [
        (["python", "-m", "launch.train", "x"], ["-m", "x"], True),
        (["python", "-X", "dev", "-mlaunch.train", "x"], ["-m", "x"], True),
        (["python", "-m", "launch", "train"], ["-m", "train"], True),
        (["python", "-m", "launcher", "train"], ["-m", "train"], False),
        (["python", "-m", "pytest", "x"], ["-m", "x"], False),
        (["python", "-m", "launch.train", "x"], ["/a/launch/train.py", "x"], False),
        (["python", "/bin/pnoise", "train"], ["/bin/pnoise", "train"], True),
        (["python", "/bin/coverage", "run", "/bin/pnoise"], ["/bin/pnoise"], True),
        (["python", "/home/pnoise.py", "x"], ["/home/pnoise.py", "x"], False),
        (["python", "/bin/jupyter", "x"], ["/bin/pnoise", "train"], False),
        (["python", "-c", "pass"], ["-c"], False),
        (["python"], [""], False),
        ([], [], False),
    ],
)
def test_only_programs_of_this_package_restart(command, arguments, expected):
    assert programs.is_program(command, arguments) is expected


@pytest.mark.parametrize("version", [(2, 34), (2, 17), ()])
def test_programs_do_not_restart_with_an_old_or_another_libc(monkeypatch, version):
    monkeypatch.setattr(huge_pages, "_glibc", lambda: version)
    assert not huge_pages.help_here(CPU)


@pytest.mark.parametrize(
    ("mode", "helps"),
    [
        ("always [madvise] never", True),
        ("[always] madvise never", False),
        ("always madvise [never]", False),
        (None, False),
    ],
)
def test_the_kernels_mode_decides(monkeypatch, tmp_path, mode, helps):
    monkeypatch.setattr(huge_pages, "_glibc", lambda: (2, 36))
    monkeypatch.setattr(huge_pages, "_MODE", tmp_path / "enabled")
    if mode is not None:
        (tmp_path / "enabled").write_text(mode)
    assert huge_pages.help_here(CPU) is helps


@pytest.mark.parametrize("platforms", ["cuda", "tpu,cpu", "rocm"])
def test_programs_on_accelerators_do_not_restart(platforms):
    assert not huge_pages.help_here({"JAX_PLATFORMS": platforms})


def test_without_a_choice_of_platforms_jaxs_plugins_decide(monkeypatch, tmp_path):
    monkeypatch.setattr(huge_pages, "_glibc", lambda: (2, 36))
    monkeypatch.setattr(huge_pages, "_gives_them_on_request", lambda: True)
    monkeypatch.setattr(programs, "_PLUGINS", ("some_plugin",))
    assert huge_pages.help_here({})
    (tmp_path / "some_plugin").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not huge_pages.help_here({})
    assert huge_pages.help_here(CPU)


@pytest.mark.parametrize("preload", ["/lib/libtcmalloc.so.4", "libjemalloc.so"])
def test_programs_with_another_allocator_do_not_restart(preload):
    assert not huge_pages.help_here(CPU | {"LD_PRELOAD": preload})
