"""`pnoise PROGRAM`, from any directory: in a clone, and as installed."""

import pathlib
import re
import subprocess
import sys
import venv

import pytest

from launch.__main__ import PROGRAMS
from tests.launch import command

ROOT = pathlib.Path(__file__).parents[2]


def run(module, *arguments, path, cwd):
    environment = command.ENVIRONMENT | {"PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=300,
    )


@pytest.mark.parametrize("folder", ["launch", "configs", "pnoise_jax", "docs"])
def test_programs_have_the_name_that_works_wherever_the_package_is_installed(folder):
    """Only a clone has ``python -m launch.PROGRAM``."""
    programs = "|".join(PROGRAMS)
    for file in (ROOT / folder).rglob("*"):
        if file.suffix in (".py", ".md") and file.name != "speed-log.md":
            named = re.search(rf"(?<![\w.])launch\.({programs})\b(?!\",)", file.read_text())
            assert named is None, f"{file}: {named[0]}"


def test_help_names_every_program(tmp_path):
    done = run("launch", path=ROOT, cwd=tmp_path)
    assert done.returncode == 0
    files = {file.stem for file in (ROOT / "launch").glob("*.py")}
    shared = {
        "compilation_cache",
        "config_errors",
        "ending",
        "huge_pages",
        "main",
        "programs",
        "run_flags",
        "values",
        "xla_options",
    }
    for name in (*(name for name in files - shared if not name.startswith("__")), "benchmark"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("program", ["audit", "bridge", "evaluate", "show", "train"])
def test_a_program_without_flags_says_which_it_needs(program):
    code, _, errors = command.run(program)
    assert code == 64
    assert errors.startswith("error: ")
    assert "--" in errors


def test_an_unknown_program_gets_a_hint(tmp_path):
    done = run("launch", "trian", path=ROOT, cwd=tmp_path)
    assert done.returncode == 64
    assert "unknown program 'trian'; did you mean 'train'?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits_vit", "steps=0: give a whole number"),
        ("configs/digits_vit.py", "steps=0: give a whole number"),
        ("digit_vit", "did you mean 'digits_vit'"),
        ("elsewhere/digits_vit.py", "there is no such file"),
    ],
)
def test_built_in_configs_are_found_by_name(name, message, tmp_path):
    arguments = ("train", "--config", name, f"--workdir={tmp_path / 'run'}", "--config.steps=0")
    code, _, errors = command.run_forked("launch", *arguments, directory=tmp_path, path=[tmp_path])
    assert code == 64
    assert message in errors


def test_a_config_imports_a_module_beside_it(tmp_path):
    (tmp_path / "my_settings.py").write_text("STEPS = 0\n")
    (tmp_path / "mine.py").write_text(
        "import digits_vit_again\nimport my_settings\n\n\ndef get_config():\n"
        "    config = digits_vit_again.get_config()\n"
        "    config.steps = my_settings.STEPS\n    return config\n"
    )
    (tmp_path / "digits_vit_again.py").write_text((ROOT / "configs/digits_vit.py").read_text())
    done = run("launch", "train", "--config=mine.py", "--workdir=run", path=ROOT, cwd=tmp_path)
    assert "steps=0: give a whole number" in done.stderr


@pytest.mark.slow  # builds the package, for which it fetches setuptools; .ci/run runs it
def test_the_package_trains_from_an_empty_folder(tmp_path, data_dir):
    """The wheel built from the sdist, in a new environment, without a clone."""
    dist, environment, empty = (tmp_path / name for name in ("dist", "environment", "empty"))
    empty.mkdir()

    def call(*arguments):
        done = subprocess.run(
            list(map(str, arguments)),
            capture_output=True,
            text=True,
            cwd=empty,
            env=command.ENVIRONMENT,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call(sys.executable, "-m", "build", "--outdir", dist, ROOT)  # the sdist, and from it the wheel
    assert sorted(path.suffix for path in dist.iterdir()) == [".gz", ".whl"]
    venv.create(environment, with_pip=True)
    python, pnoise = environment / "bin" / "python", environment / "bin" / "pnoise"
    call(python, "-m", "pip", "install", "--quiet", "--no-deps", *dist.glob("*.whl"))
    (site,) = (environment / "lib").glob("*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]  # the dependencies
    (site / "dependencies.pth").write_text("\n".join(others))

    assert "train" in call(pnoise, "--help")
    where = call(python, "-c", "import pnoise_jax; print(pnoise_jax.__file__)")
    assert pathlib.Path(where.strip()).is_relative_to(environment)
    training = "train", "--config", "digits_vit", "--workdir", "run", "--config.steps=1"
    call(pnoise, *training, f"--data_dir={data_dir}")
    assert (empty / "run" / "evaluation.json").is_file()
    assert (site / "pnoise_jax" / "py.typed").is_file()
    assert (site / "pnoise_jax" / "studies" / "reporting" / "templates" / "page.html").is_file()


@pytest.mark.slow
def test_a_second_run_reuses_compiled_programs(data_dir, tmp_path):
    """In the user's cache. If it cannot be written, programs compile again without a message."""
    config = "configs/digits_vit.py", "--config.steps=1", "--config.model.depth=1"
    config += (
        "--config.noise.layer=1",
        f"--data_dir={data_dir}",
        "--config.data.test_split=test[:50]",
    )

    def run(program, *arguments, cache):
        where = {"XDG_CACHE_HOME": str(cache), "JAX_COMPILATION_CACHE_DIR": None}
        code, _, errors = command.run(program, *arguments, **where)
        assert code == 0, errors
        assert "ache" not in errors

    def train(name):
        run("train", "--config", *config, "--workdir", tmp_path / name, cache=cache)

    cache = tmp_path / "cache"
    train("first")
    (programs,) = (cache / "pnoise_jax").glob("compiled-*")
    cached = {path: path.stat().st_mtime_ns for path in programs.glob("*-cache")}
    assert cached
    train("second")
    assert cached == {path: path.stat().st_mtime_ns for path in programs.glob("*-cache")}
    run("evaluate", "--workdir", tmp_path / "first", cache="/proc/self")


def test_too_little_memory_is_answered_with_fields_to_change(tmp_path):
    code = "from launch import main\nimport jax.numpy as jnp\nmain.run(lambda: jnp.ones(2**46))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=command.ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 1
    assert "RESOURCE_EXHAUSTED" in done.stderr
    assert "Try a smaller batch_size" in done.stderr
