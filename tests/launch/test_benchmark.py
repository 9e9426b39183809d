"""The command line of launch.benchmark at tiny sizes. The times themselves are not checked."""

import fcntl
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from launch.benchmark import input_pipelines, measuring, report, timm_step
from pnoise_jax.data.image import images
from tests.launch import command

pytestmark = pytest.mark.long

PASSES = ("forward", "backward")


def run(*arguments: object) -> subprocess.CompletedProcess:
    done = command.run_forked("launch.benchmark", *arguments, strict=True)
    return subprocess.CompletedProcess(arguments, *done)


def require_spread(spread: dict) -> None:
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    ordered = [spread[name] for name in names]
    assert ordered == sorted(ordered)
    assert ordered[0] > 0


def require_compared(alternatives: dict, *, to: str, rounds: int) -> None:
    for name, measured in alternatives.items():
        assert measured["rounds"] == rounds
        require_spread(measured["seconds"])
        if name != to:
            require_spread(measured["ratio"])
            assert len(measured["ratios"]) == rounds


@pytest.fixture(scope="module")
def noise_run(tmp_path_factory) -> tuple[str, dict]:
    out = tmp_path_factory.mktemp("noise") / "noise.json"
    done = run("noise", "--k=8", "--shape=5,16", "--devices=1,2", "--rounds=2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(out.read_text())


@pytest.fixture(scope="module")
def step_run(tmp_path_factory) -> tuple[str, dict]:
    out = tmp_path_factory.mktemp("step") / "step.json"
    sizes = ("--model=vit_ti_16", "--depth=1", "--image_size=32", "--batch_size=4", "--rounds=2")
    done = run("step", *sizes, "--preset=optimal_published", f"--out={out}")
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(out.read_text())


@pytest.mark.slow
def test_noise_measures_every_alternative_pass_and_device_count(noise_run):
    _, content = noise_run
    cases = {(r["devices"], r["k"], r["quality"], r["pass"]) for r in content["results"]}
    qualities = ("cyclic_shift", "optimal")
    assert cases == {(d, 8, q, p) for d in (1, 2) for q in qualities for p in PASSES}
    for result in content["results"]:
        names = ["structured", "matmul"]
        if result["quality"] == "optimal":
            names.append("loop")
        names.append("copy")
        require_spread(result["to_copy"]["ratio"])
        assert list(result["alternatives"]) == names
        require_compared(result["alternatives"], to="structured", rounds=2)


def test_noise_says_that_the_alternatives_agree(noise_run):
    printed, content = noise_run
    assert printed.count("all alternatives agreed") == 2
    for result in content["results"]:
        assert set(result["difference"]) == set(result["alternatives"]) - {"structured", "copy"}
        assert max(result["difference"].values()) < 1e-5


@pytest.mark.slow
def test_noise_in_bfloat16_agrees_with_a_loop_that_loses_digits(tmp_path):
    out = tmp_path / "noise.json"
    sizes = ("--dtype=bfloat16", "--k=256", "--shape=500", "--devices=1", "--rounds=1")
    done = run("noise", *sizes, f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "all alternatives agreed" in done.stdout


def test_noise_reports_the_machine_and_the_date(noise_run):
    _, content = noise_run
    assert {"date", "python", "versions", "cpu_count", "load_average"} <= content.keys()
    assert {"jax", "jaxlib"} <= content["versions"].keys()
    assert {r["device_kind"] for r in content["results"]} == {"cpu"}
    assert content["specs"][0]["shape"] == [5, 16]


@pytest.mark.slow
def test_step_compares_with_the_plain_step(step_run):
    printed, content = step_run
    (result,) = content["results"]
    noisy = ["optimal_published/structured", "optimal_published/matmul"]
    sites = ["image", "weights", "fgsm", "pgd", "denoising/encoder", "denoising"]
    assert list(result["alternatives"]) == ["plain", *noisy, *sites]
    assert result["memory"].keys() == result["alternatives"].keys()
    assert min(result["memory"].values()) > 0
    assert result["goals"]["fgsm"] == 2.2
    require_compared(result["alternatives"], to="plain", rounds=2)
    assert "loss and gradient norm of structured and matmul agreed" in printed
    assert list(result["difference"]) == ["optimal_published/matmul"]


@pytest.mark.slow
def test_step_measures_noises_at_the_last_and_at_every_layer(tmp_path):
    out = tmp_path / "step.json"
    sizes = ("--model=vit_ti_16", "--depth=2", "--image_size=32", "--batch_size=4", "--rounds=2")
    noises = ("--preset=", "--sites=", "--noises=optimal,gaussian", "--steps=2")
    done = run("step", *sizes, *noises, f"--out={out}")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(out.read_text())["results"]
    noisy = ["optimal, last", "optimal, every", "gaussian, last", "gaussian, every"]
    assert list(result["alternatives"]) == ["plain", *noisy]
    norms = [metrics["grad_norm"] for metrics in result["first_step"].values()]
    assert len(set(norms)) == 5
    named = set(result["goals"]) & set(noisy)
    assert named == {"optimal, last", "optimal, every", "gaussian, every"}


@pytest.mark.slow
def test_step_has_training_noise_on(step_run):
    _, content = step_run
    first_step = content["results"][0]["first_step"]
    plain = first_step.pop("plain")
    assert "psnr" in first_step["denoising"]
    for metrics in first_step.values():
        assert abs(metrics["grad_norm"] - plain["grad_norm"]) > 1e-4


@pytest.mark.slow
def test_audit_compares_with_one_clean_evaluation(tmp_path):
    sizes = ("--depth=2", "--image_size=32", "--examples=20", "--batch_sizes=2,4", "--rounds=2")
    done = run("audit", *sizes, "--orders=20", f"--out={tmp_path / 'audit.json'}")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads((tmp_path / "audit.json").read_text())["results"]
    assert result["orders"] == 2 * (20 + 1 + 10 + 5 + 1)
    assert list(result["alternatives"]) == ["clean", "audit", "separately"]
    separately = result["alternatives"].pop("separately")
    require_compared(result["alternatives"], to="clean", rounds=2)
    assert separately["rounds"] == 1
    assert list(result["difference"]) == ["separately"]
    assert "74 orders" in done.stdout


@pytest.mark.slow
def test_data_compares_input_pipelines(tmp_path):
    sizes = ("--images=16", "--batch_size=8", "--image_size=32", "--threads=1,2", "--rounds=2")
    done = run("data", *sizes, f"--out={tmp_path / 'data.json'}")
    assert done.returncode == 0, done.stderr
    with_tensorflow = importlib.util.find_spec("tensorflow") is not None
    assert ("TensorFlow is not installed" in done.stdout) != with_tensorflow
    results = json.loads((tmp_path / "data.json").read_text())["results"]
    assert [result["threads"] for result in results] == [1, 2]
    kinds = ("tf.data uint8", "tf.data float32") if with_tensorflow else ()
    for result in results:
        names = ["ours", *kinds, "PIL float32", "ours, short side 320"]
        assert list(result["alternatives"]) == names
        require_compared(result["alternatives"], to="ours", rounds=2)
        assert list(result["difference"]) == names[1:]
        for measured in result["alternatives"].values():
            require_spread(measured["cpu_seconds_per_image"])
            per_pass = 16 * measured["seconds_per_image"]["median"]
            assert per_pass == pytest.approx(measured["seconds"]["median"])
    assert done.stdout.count("the mean pixels agreed") == 2


@pytest.mark.slow
def test_models_are_compared_with_timms(tmp_path):
    sizes = ("--models=resnet18", "--image_size=64", "--batch_size=8", "--rounds=2")
    more = ("--timm=eager", "--kernels=auto,xla", "--dtype=bfloat16", "--steps=2")
    done = run("models", *sizes, *more, f"--out={tmp_path / 'models.json'}")
    assert done.returncode == 0, done.stderr
    with_timm = all(importlib.util.find_spec(name) for name in ("torch", "timm"))
    assert ("PyTorch and timm are not installed" in done.stdout) != with_timm
    results = json.loads((tmp_path / "models.json").read_text())["results"]
    assert [result["what"] for result in results] == ["forward", "training step"]
    names = ["ours", "timm"] if with_timm else ["ours"]
    for result in results:
        assert list(result["to"]) == names[-1:]
        require_compared(result["to"][names[-1]], to=names[-1], rounds=2)
        assert list(result["difference"]) == names[1:]
        assert result["steps"] == 2
    forward, step = (result["flops"] for result in results)
    assert step == 3 * forward


@pytest.mark.parametrize("times", [1, 3])
def test_a_repeated_function_is_applied_to_its_own_result(times):
    call = measuring.compile_repeated(lambda x: 2 * x + 1, jnp.arange(3.0), times)
    np.testing.assert_array_equal(call(), 2**times * jnp.arange(3.0) + 2**times - 1)


def test_a_repeated_call_returns_the_last_result():
    numbers = iter(range(9))
    assert measuring.repeat(lambda: next(numbers), 4)() == 3


def test_a_benchmark_on_a_shared_gpu_waits_while_others_prepare(tmp_path, monkeypatch):
    turns = tmp_path / "turns"
    turns.touch()
    monkeypatch.setenv(measuring.TURNS, str(turns))
    monkeypatch.setattr(measuring, "_turns", None)
    measuring.share_turns()
    waiting = threading.Thread(target=measuring.take_turn)
    with open(turns) as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()
    assert measuring._turns is not None
    with measuring._turns, open(turns) as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


NOISE = ("noise", "--k=8", "--shape=5,16", "--devices=1")


def run_gpu(parts: dict[str, tuple[str, ...]], *flags: object) -> subprocess.CompletedProcess:
    """Runs `benchmark gpu` with other parts, as if this machine had a GPU."""
    script = f"""
from launch import main
from launch.benchmark import gpu
gpu.PARTS = {parts}
gpu.look = lambda: {{"jax": "gpu", "torch": False}}
main.run(gpu.main, keep_compiled=False)
"""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, f"--parts={','.join(parts)}", *flags],
        cwd=command.ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_gpu_measures_each_part_and_names_those_that_fail(tmp_path):
    parts = {
        "noise": (*NOISE, "--rounds=2", "--torch"),
        "wrong": ("noise", "--k=7", "--devices=2"),
        "draws": ("draws", "--k=8", "--shape=5,16", "--rounds=2"),
    }
    done = run_gpu(parts, "--at_once=2", f"--out={tmp_path / 'gpu'}")
    assert done.returncode == 1
    assert "failed: wrong; the reasons are printed above" in done.stderr
    assert "--k=7 is not divisible by --devices=2" in done.stdout
    assert {path.name for path in (tmp_path / "gpu").iterdir()} == {"noise.json", "draws.json"}
    first = json.loads((tmp_path / "gpu" / "noise.json").read_text())["results"][0]
    assert list(first["alternatives"]) == ["structured", "matmul", "copy"]  # no torch.roll


@pytest.mark.slow
def test_gpu_stops_after_some_minutes_and_says_what_it_left_out(tmp_path):
    parts = {
        "short": (*NOISE, "--rounds=1"),
        "long": (*NOISE, "--rounds=100000000"),
        "after": (*NOISE, "--rounds=1"),
    }
    done = run_gpu(parts, "--at_once=1", "--minutes=0.5", f"--out={tmp_path / 'gpu'}")
    assert done.returncode == 0, done.stderr
    assert "measured 1 of 3 parts in 3" in done.stdout
    assert "not measured, as --minutes=0.5 had passed: --parts=long,after" in done.stdout
    assert [path.name for path in (tmp_path / "gpu").iterdir()] == ["short.json"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="children are read from /proc")
def test_a_measuring_process_ends_with_its_benchmark():
    benchmark = subprocess.Popen(
        [sys.executable, "-m", "launch.benchmark", *NOISE, "--rounds=100000000"],
        cwd=command.ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
    )
    listed = Path(f"/proc/{benchmark.pid}/task/{benchmark.pid}/children")

    def measuring_processes() -> list[str]:
        return [
            child
            for child in listed.read_text().split()
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]

    assert wait_for(measuring_processes, seconds=60)
    (child,) = measuring_processes()
    time.sleep(5)  # until it measures
    assert runs(child)
    benchmark.kill()
    benchmark.wait()
    assert wait_for(lambda: not runs(child), seconds=10)


def runs(process: str) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return ") Z" not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_for(happened: Callable[[], object], *, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happened():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_measures_processes_that_load_train_and_audit(tmp_path):
    out = tmp_path / "memory.json"
    sizes = ("--image_size=32", "--batch_size=2", "--examples=80")
    done = run("memory", "--models=vit_ti_16", *sizes, f"--out={out}")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(out.read_text())["results"]
    peaks = result["peak_bytes"]
    assert list(peaks) == ["starts", "loads", "trains", "audits"]
    # 5.5 million parameters, with gradients and two moments in training.
    assert peaks["loads"] - peaks["starts"] > 4 * 5.5e6
    assert peaks["trains"] - peaks["starts"] > 4 * 4 * 5.5e6
    assert peaks["audits"] > peaks["loads"]


def test_draws_compares_noises_with_drawing_alone(tmp_path):
    out = tmp_path / "draws.json"
    done = run("draws", "--k=4", "--shape=3,8", "--rounds=2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())["results"]
    assert [result["noise"] for result in results] == ["gaussian", "salt_and_pepper"]
    generators = ["threefry2x32", "rbg", "unsafe_rbg"]
    names = [f"{what}, {generator}" for generator in generators for what in ("draw", "noise")]
    for result in results:
        assert list(result["alternatives"]) == names
        require_compared(result["alternatives"], to=names[0], rounds=2)
        assert list(result["to_draw"]) == generators


def test_torch_compile_needs_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", f"{tmp_path / 'compiler'} -O1")
    with pytest.raises(
        ValueError, match=r"--timm=compiled: there is no .*/compiler, which torch\.compile"
    ):
        timm_step.require_compiler()
    (tmp_path / "compiler").touch(0o755)
    timm_step.require_compiler()


def test_generated_jpegs_are_of_imagenets_size(tmp_path):
    input_pipelines.write_folders(tmp_path, 14)
    files = [file.read_bytes() for file in tmp_path.glob("*/*.jpg")]
    assert len(files) == 14
    assert 100e3 < np.mean([len(encoded) for encoded in files]) < 120e3
    assert all(300 <= min(images.image_size(encoded)) <= 480 for encoded in files)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            (),
            (
                "no subcommand",
                "noise, draws, exchanges, checkpoint, step, sweep, audit, data, adapt",
            ),
        ),
        (("nosie",), ("unknown subcommand 'nosie'", "did you mean 'noise'?")),
        (("noise", "step"), ("unexpected arguments: step",)),
        (("noise", "--k=9", "--devices=1,2"), ("--k=9", "--devices=2", "multiple of 2")),
        (("noise", "--k=1"), ("--k=1", "at least 2")),
        (("exchanges", "--k=60"), ("--k=60 is not divisible by --devices=8", "such as 64")),
        (("noise", "--k=8,x"), ("--k=8,x", "'x'")),
        (("noise", "--dtype=float31"), ("--dtype=float31", "float32")),
        (("noise", "--out=absent/noise.json"), ("--out=absent/noise.json", "does not exist")),
        (("noise", "--out=README.md"), ("--out=README.md exists", "never overwritten")),
        (("noise", "--out=docs"), ("--out=docs is a directory",)),
        (("audit", "--batch_sizes=8,500"), ("--batch_sizes=8,500", "has only 320 examples")),
        (("audit", "--preset=paper_vt"), ("--preset=paper_vt", "did you mean 'paper_vit'")),
        (("audit", "--preset=published_vit"), ("--preset=published_vit", "retired", "'paper_vit'")),
        (("data", "--threads=0"), ("--threads=0", "at least 1")),
        (("data", "--images=10"), ("--batch_size=64", "--images=10")),
        (("models", "--models=vit_ti16"), ("--model=vit_ti16", "did you mean 'vit_ti_16'")),
        (("models", "--kernels=cudn"), ("--kernels=cudn", "did you mean 'cudnn'")),
        (("models", "--timm=compile"), ("--timm=compile", "did you mean 'compiled'")),
        (("step", "--noises=gausian"), ("--noises=gausian", "did you mean 'gaussian'")),
        (("step", "--preset="), ("--preset and --noises are empty", "cyclic_shift")),
        (("gpu", "--parts=vit_b", "--out=x"), ("--parts=vit_b", "did you mean 'vit_b_16'")),
        (("gpu",), ("--out",)),
        (("gpu", "--out=gs://bucket/x"), ("--out='gs://bucket/x' is a URL", "gcsfuse")),
        (("gpu", "--out=docs"), ("--out=docs exists", "new folder")),
        (("gpu", "--parts=", "--out=x"), ("--parts is empty", "vit_b_16")),
        (("memory", "--models="), ("--models is empty", "vit_ti_16")),
        (("memory", "--models=vit_ti_61"), ("vit_ti_61", "did you mean 'vit_ti_16'")),
        (("models", "--models="), ("--models is empty", "vit_ti_16")),
        (("gpu", "--out=absent"), ("JAX runs on cpu here", "pnoise_jax[cuda13]")),
        (("models", "--image_size=33"), ("--model=vit_ti_16 --image_size=33", "multiple of 16")),
        (("step", "--k=8"), ("Unknown command line flag 'k'",)),
        (("step", "--model=vit_ti16"), ("--model=vit_ti16", "did you mean 'vit_ti_16'")),
        (("step", "--preset=paper_vt"), ("--preset=paper_vt", "did you mean 'paper_vit'")),
        (("step", "--preset=published_vit"), ("--preset=published_vit", "retired", "'paper_vit'")),
        (("step", "--sites=fsgm"), ("--sites=fsgm", "did you mean 'fgsm'")),
        (("step", "--image_size=33"), ("--image_size=33", "multiple of 16")),
        (("step", "--batch_size=6", "--devices=4"), ("--batch_size=6", "multiple of 4")),
        (("growth", "--axes=batches"), ("--axes=batches", "did you mean 'batch'")),
        (("growth", "--depth=4"), ("--depth=4", "two sizes")),
        (("growth", "--dim=32,60"), ("--dim=60 is not a multiple of 32", "such as 64")),
        (("growth", "--devices=1,3"), ("--batch_size=32", "--devices=3")),
        (("growth", "--examples=40,80"), ("--examples=80 --classes=250",)),
        (("growth", "--cells=250,505"), ("--cells=505 is not a multiple of 10",)),
        (("scaling", "--devices=2,4"), ("--devices=2,4: give 1",)),
        (("scaling", "--images=100"), ("--images=100 is not a multiple of 128",)),
    ],
)
def test_bad_input_is_named_at_once(arguments, expected):
    done = run(*arguments)
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert "Traceback" not in output
    for text in expected:
        assert text in output


def test_tables_are_not_cut_if_the_output_is_not_a_terminal(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    console, _ = report.start(None)
    columns = [f"column {number:02}" for number in range(20)]
    console.print(report.table("title", columns, [[f"{x}, whole" for x in columns]]))
    printed = capsys.readouterr().out
    assert all(f"{column}, whole" in printed for column in columns)
    assert "…" not in printed


@pytest.mark.slow
def test_checkpoints_are_measured(tmp_path):
    out = tmp_path / "checkpoint.json"
    sizes = ("--models=vit_ti_16", "--image_size=32", "--batch_size=4", "--rounds=2")
    done = run("checkpoint", *sizes, "--devices=2", "--fsdp=2", f"--dir={tmp_path}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "A checkpoint every 15 minutes delays the training by" in done.stdout
    (result,) = json.loads(out.read_text())["results"]
    assert result["bytes"] > 3 * 4 * 5_500_000  # parameters and two moments, float32
    for spread in result["seconds"].values():
        require_spread(spread)
    seconds = {name: spread["median"] for name, spread in result["seconds"].items()}
    assert seconds["blocked"] < seconds["save"]
    assert [path.name for path in tmp_path.iterdir()] == [out.name]  # nothing is left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--models=vit_tiny", "--models=vit_tiny is unknown"),
        ("--fsdp=2", "fsdp=2 does not divide the 1 devices: choose one of 1"),
        ("--dir=/nowhere", "--dir=/nowhere is not a directory; create it first"),
    ],
)
def test_bad_flags_of_checkpoint_are_named(flag, message):
    done = run("checkpoint", flag)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize("exponent", [-1, 0, 0.5, 2])
def test_a_fit_finds_the_exponent_of_a_power(exponent):
    sizes = (3, 10, 20, 70)
    rounds = [[factor * size**exponent for factor in (0.1, 0.3, 0.2)] for size in sizes]
    assert measuring.exponents(sizes, rounds) == pytest.approx([exponent] * 3)


def test_a_fit_weighs_all_sizes_and_keeps_the_rounds_apart():
    first, second = measuring.exponents((1, 2, 4), [[1, 1], [2, 1], [1, 8]])
    assert first == pytest.approx(0)  # log2: 0, 1, 0
    assert second == pytest.approx(1.5)  # log2: 0, 0, 3


@pytest.mark.parametrize(
    ("rounds", "expected", "exceeds"),
    [
        ([1.2, 1.2, 1.2], 1.0, True),
        ([1.1, 1.1, 1.1], 1.0, False),
        ([0.9, 1.3, 1.3, 1.3], 1.0, True),
        ([0.9, 0.9, 1.3, 1.3], 1.0, False),
        ([0.5, 0.6, 0.7], 1.0, False),
    ],
)
def test_only_what_is_clearly_above_the_expected_exponent_exceeds_it(rounds, expected, exceeds):
    assert measuring.exceeds(measuring.spread(rounds), expected) is exceeds


@pytest.mark.slow
def test_growth_fits_an_exponent_to_each_axis(tmp_path):
    out = tmp_path / "growth.json"
    sizes = ("--batch_size=4,2", "--depth=2,1", "--image_size=16,8", "--dim=64,32", "--devices=1,2")
    others = ("--classes=5,4", "--examples=60,80", "--cells=20,10", "--rounds=2")
    axes = "--axes=tokens,classes,cells,devices"
    done = run("growth", axes, *sizes, *others, f"--out={out}")
    assert done.returncode == 0, done.stderr
    results = {result["axis"]: result for result in json.loads(out.read_text())["results"]}
    assert list(results) == ["tokens", "classes", "cells", "devices"]
    assert results["tokens"]["sizes"] == [5, 2]
    assert results["devices"]["sizes"] == [1, 2]
    small, large = sorted(results["tokens"]["flops"])
    assert results["tokens"]["expected"] == pytest.approx(np.log(large / small) / np.log(5 / 2))
    assert [results[axis]["expected"] for axis in ("classes", "cells", "devices")] == [1, 1, 0]
    for axis, result in results.items():
        assert result["devices"] == (2 if axis == "devices" else 1)
        for clock in ("cpu", "wall"):
            for seconds in result[clock]["seconds"]:
                require_spread(seconds)
            exponents = sorted(result[clock]["exponents"])
            assert len(exponents) == 2
            assert result[clock]["exponent"]["median"] == pytest.approx(np.mean(exponents))
            assert result[clock]["exponent"]["max"] == exponents[-1]
        beyond = result["cpu"]["exponent"]["lower_quartile"] - result["expected"]
        assert result["exceeds_expected"] is (beyond > 0.15)
    for axis, result in results.items():
        is_reported = f"{axis}: the time grows faster than expected" in done.stdout
        assert is_reported is result["exceeds_expected"]


@pytest.mark.slow
def test_scaling_compares_with_one_device_and_one_host(tmp_path):
    out = tmp_path / "scaling.json"
    step = ("--devices=2,1", "--batch_size=2", "--image_size=8", "--dim=32", "--depth=1")
    input_ = ("--hosts=1,2", "--images=8", "--images_per_host=2", "--rounds=2")
    done = run("scaling", *step, *input_, f"--out={out}")
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())["results"]
    whats = ["plain step", "plain step", "noisy step", "noisy step", "input", "input"]
    assert [result["what"] for result in results] == whats
    assert [result["devices"] for result in results] == [2, 1, 2, 1, 1, 1]
    assert [result["hosts"] for result in results[4:]] == [1, 2]
    for result in results:
        require_spread(result["cpu_seconds"])
        require_spread(result["ratio"])
        assert len(result["ratios"]) == 2
    for number in (1, 3, 4):
        assert results[number]["ratios"] == [1, 1]
    for result in results[4:]:
        seconds = result["cpu_seconds"]["median"]
        assert 8 * result["cpu_seconds_per_image"]["median"] == pytest.approx(seconds)
