"""pnoise train and evaluate as a user runs them."""

import json
import re
import signal
import socket
import time

import pytest

from pnoise_jax.runs import RunDirectory
from pnoise_jax.training import run_config
from tests.launch import command
from tests.training.runs import small_config
from tests.weights import sources


def arguments(name, data_dir, workdir, *more):
    config = f"--config=configs/{name}.py"
    return config, f"--workdir={workdir}", f"--config.data.data_dir={data_dir}", *more


@pytest.mark.parametrize(
    ("name", "more", "clean_above", "class_sorted_above"),
    [
        # Half of its blocks and epochs, which classify a little worse.
        ("digits_vit", ["--config.duration=50 epochs", "--config.model.depth=2"], 60, 90),
        pytest.param("digits_vit", [], 65, 95, marks=pytest.mark.slow),
        pytest.param("digits_resnet", [], 65, 95, marks=pytest.mark.slow),
    ],
)
def test_the_leak_shows_at_once(name, more, clean_above, class_sorted_above, data_dir, tmp_path):
    """The README's command: the same weights, evaluated three ways."""
    code, output, errors = command.run("train", *arguments(name, data_dir, tmp_path, *more))
    assert code == 0, errors
    clean, shuffled, class_sorted = json.loads((tmp_path / "evaluation.json").read_text())["rows"]
    assert {row["n"] for row in (clean, shuffled, class_sorted)} == {1000}
    assert clean["top1"] > clean_above
    assert shuffled["top1"] < clean["top1"] - 20
    assert class_sorted["top1"] > max(class_sorted_above, clean["top1"] + 5)
    assert "noisy, class-sorted" in output
    assert f"{class_sorted['top1']:.1f}" in output
    assert "examples/s" in output

    changes = ("--config.noise.axis=tokens", "--config.evaluation.batch_size=50")
    code, output, errors = command.run("evaluate", f"--workdir={tmp_path}", *changes)
    assert code == 0, errors
    (file,) = (tmp_path / "evaluations").iterdir()  # another measurement than in training
    tokens = json.loads(file.read_text())["rows"]
    assert json.loads((tmp_path / "evaluation.json").read_text())["rows"][0] == clean
    assert tokens[0]["top1"] == clean["top1"]
    assert tokens[1]["top1"] == tokens[2]["top1"]  # inside one image the order cannot matter


STEPS = 240
SMALL = (
    f"--config.duration={STEPS} steps",
    "--config.optimizer.warmup=0 steps",
    "--config.model.depth=1",
    "--config.model.dim=16",
    "--config.checkpoint.every=40 steps",
    "--config.log_every=40 steps",
    "--config.noise.preset=paper_vit",
    "--config.model.dropout=0.1",
    "--config.data.test_split=test[:200]",
)


def checksums(workdir):
    file = workdir / "checkpoints" / f"{STEPS}" / "arrays" / "metadata"
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def straight(data_dir, tmp_path_factory):
    """The run of SMALL without a break."""
    directory = tmp_path_factory.mktemp("straight")
    code, _, errors = command.run("train", *arguments("digits_vit", data_dir, directory, *SMALL))
    assert code == 0, errors
    return directory


@pytest.mark.long
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        *(pytest.param(s, marks=pytest.mark.slow) for s in (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_a_killed_run_resumes_to_bitwise_the_same_end(straight, data_dir, tmp_path, number):
    process = command.Forked("launch.train", *arguments("digits_vit", data_dir, tmp_path, *SMALL))
    deadline = time.monotonic() + 200
    while not any((tmp_path / "checkpoints" / f"{step}").exists() for step in range(40, STEPS, 40)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate()
    assert not (tmp_path / "checkpoints" / f"{STEPS}").exists(), "killed too late"
    if number != signal.SIGKILL:
        last = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
        assert process.returncode == 75
        assert errors.splitlines()[-1] == (
            f"stopped by {number.name} after step {last} of {STEPS}; the checkpoint of step {last} "
            f"is saved in {tmp_path / 'checkpoints'}; start the same command to resume"
        )
    code, output, errors = command.run(
        "train", *arguments("digits_vit", data_dir, tmp_path, *SMALL)
    )
    assert code == 0, errors
    assert "resuming from the checkpoint of step" in output
    assert checksums(tmp_path) == checksums(straight)
    reports = [json.loads((d / "evaluation.json").read_text()) for d in (straight, tmp_path)]
    assert reports[0]["rows"] == reports[1]["rows"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--config.nois.layer=3", "unknown config field nois.layer; did you mean noise?"),
        ("--config.noise.layr=3", "unknown config field noise.layr; did you mean layer?"),
        ("--confg.noise.layer=3", "Unknown command line flag 'confg.noise.layer'"),
        ("--config.batch_size=many", "--config.batch_size=many: invalid literal"),
        ("--config.noise.preset=publishd_resnet", "did you mean 'published_resnet'"),
        ("--config.noise.preset=published_vit", "noise.preset='published_vit': this preset is re"),
        ("--config.model.name=vit_t_16", "did you mean 'vit_ti_16'"),
        ("--config.data.name=digit", "did you mean 'digits'"),
        ("--config.data.data_dir=/nowhere/data", "'/nowhere' does not exist"),
        ("--workdir=/proc/run", "--workdir='/proc/run' cannot be written"),
        ("surplus", "unexpected arguments: surplus"),
    ],
)
def test_bad_input_ends_with_one_clear_message(data_dir, tmp_path, more, message):
    workdir = tmp_path / "run"
    code, output, errors = command.run("train", *arguments("digits_vit", data_dir, workdir, more))
    assert code != 0
    assert message in output + errors
    assert "Traceback" not in errors
    assert not workdir.exists()


def test_devices_that_do_not_divide_the_batch_are_refused(data_dir, tmp_path):
    code, _, errors = command.run(
        "train", *arguments("digits_vit", data_dir, tmp_path / "run"), JAX_NUM_CPU_DEVICES="8"
    )
    assert code != 0
    assert "batch_size=50 is not divisible by 8 devices: use a multiple of 8, such as 48" in errors


def test_evaluate_refuses_typos_and_needs_no_config_file(data_dir, tmp_path):
    run_config.claim(tmp_path, small_config(data_dir))
    code, _, errors = command.run("evaluate", f"--workdir={tmp_path}", "--config.noise.strenght=1")
    assert code != 0
    assert errors == "error: unknown config field noise.strenght; did you mean strength?\n"
    code, _, errors = command.run("evaluate", f"--workdir={tmp_path}")
    assert code != 0
    assert errors.startswith(f"error: {tmp_path / 'checkpoints'} contains no checkpoint")


@pytest.mark.parametrize("program", ["train", "evaluate"])
def test_help_lists_the_flags(program):
    _, output, errors = command.run(program, "--help")
    for flag in ("--config:", "--workdir:", "--data_dir:", "--[no]multi_host:", "--[no]traceback:"):
        assert f"\n  {flag}" in output + errors


def test_half_a_distributed_setting_is_named(data_dir, tmp_path):
    code, _, errors = command.run(
        "train",
        *arguments("digits_vit", data_dir, tmp_path / "run"),
        JAX_COORDINATOR_ADDRESS="127.0.0.1:1",
    )
    assert code != 0
    assert "JAX_NUM_PROCESSES=None and JAX_PROCESS_ID=None" in errors


def test_one_of_several_tasks_does_not_train_alone(data_dir, tmp_path):
    code, _, errors = command.run(
        "train", *arguments("digits_vit", data_dir, tmp_path / "run"), SLURM_STEP_NUM_TASKS="4"
    )
    assert code != 0
    assert "SLURM_STEP_NUM_TASKS=4" in errors
    assert "--multi_host" in errors


_DEFAULT = "from pnoise_jax.training import default_config\ndef get_config():\n"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("def get_config(:", "SyntaxError: invalid syntax", ":1"),
        ("import numpy\nnumpy.nothing", "AttributeError: module 'numpy' has no attribute", ":2"),
        ("def get_config():\n    return {}['seed']", "KeyError: 'seed'", ":2"),
        ("x = 1", "no attribute 'get_config'", ""),
        (f"{_DEFAULT}    return default_config().optimizer.lr", "did you mean 'optimizer.l", ":3"),
        (f"{_DEFAULT}    c = default_config()\n    c.seed = 'one'", "override field 'seed'", ":4"),
    ],
)
def test_a_broken_config_file_is_named_with_its_line(tmp_path, text, message, line):
    file = tmp_path / "broken.py"
    file.write_text(text)
    code, _, errors = command.run("train", f"--config={file}", f"--workdir={tmp_path / 'run'}")
    assert code == 64
    assert "the config file fails" in errors
    assert message in errors
    assert f"({file}{line})" in errors
    assert "Traceback" not in errors


def test_a_config_file_that_returns_nothing_is_named(tmp_path):
    file = tmp_path / "nothing.py"
    file.write_text("def get_config():\n    pass")
    code, _, errors = command.run("train", f"--config={file}", f"--workdir={tmp_path / 'run'}")
    assert code == 64
    assert f"--config={file}: get_config() returns None; end it with 'return config'" in errors


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("optimizer.lr=3", "optimizer.lr: unknown field; did you mean 'optimizer.learning_rate'?"),
        ("every=3", "did you mean 'evaluation.every' or 'checkpoint.every'?"),
        ("mixup.qqq=3", "unknown field. Choose one of: mixup.alpha, mixup.cutmix_alpha"),
    ],
)
def test_an_unknown_field_of_the_command_line_gets_a_hint(tmp_path, field, message):
    code, _, errors = command.run(
        "train", "--config=digits_vit", f"--workdir={tmp_path / 'run'}", f"--config.{field}"
    )
    assert code == 64
    assert message in errors


def test_a_checkpoint_that_cannot_be_written_ends_the_program(data_dir, tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the directory should be")
    code, _, errors = command.run("train", *arguments("digits_vit", data_dir, tmp_path, *SMALL))
    assert code == 64
    assert f"{tmp_path / 'checkpoints'} is a file, but a directory of that name is needed" in errors
    assert "Traceback" not in errors


def test_evaluate_needs_a_run(tmp_path):
    code, _, errors = command.run("evaluate", f"--workdir={tmp_path}")
    assert code != 0
    assert "contains no run" in errors


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """Of digits_vit's model with two blocks."""
    file = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    sources.save_random_vit(file, dim=64, depth=2, patch_size=2, grid=4)
    return file


def with_weights(file):
    """Further `arguments` for the config of digits_vit."""
    small = "--config.model.depth=2", "--config.data.test_split=test[:200]"
    return f"--config.weights={file}", *small


def on_two_hosts(*arguments_of):
    """The exit codes of two processes that train together, and what each printed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    hosts = [
        command.Forked(
            "launch.train",
            *of_host,
            variables={
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": f"{number}",
            },
        )
        for number, of_host in enumerate(arguments_of)
    ]
    outputs = [host.communicate(timeout=200) for host in hosts]
    return [host.returncode for host in hosts], outputs


@pytest.mark.slow
def test_two_hosts_train_as_one(data_dir, tmp_path, weights_file):
    """Two processes with one device each equal one process with two: noise acts over all."""
    more = (
        *with_weights(weights_file),
        "--config.steps=8",
        "--config.log_every=4",
        "--config.noise.train=True",
    )
    single, together = tmp_path / "alone", tmp_path / "together"
    code, _, errors = command.run(
        "train", *arguments("digits_vit", data_dir, single, *more), JAX_NUM_CPU_DEVICES="2"
    )
    assert code == 0, errors
    codes, outputs = on_two_hosts(*[arguments("digits_vit", data_dir, together, *more)] * 2)
    assert codes == [0, 0], outputs
    assert "noisy, class-sorted" in outputs[0][0]
    assert "noisy, class-sorted" not in outputs[1][0]  # the first host reports
    reports = [json.loads((d / "evaluation.json").read_text())["rows"] for d in (single, together)]
    for one, two in zip(*reports, strict=True):
        assert one["nll"] == pytest.approx(two["nll"], rel=1e-4)
    losses = [
        [json.loads(line)["loss"] for line in (d / "metrics.jsonl").read_text().splitlines()]
        for d in (single, together)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    # On resuming, one host sees other weights: none waits forever.
    other = tmp_path / "other"
    other.write_bytes(weights_file.read_bytes()[:-1] + b"?")
    second = (*arguments("digits_vit", data_dir, together, *more), f"--config.weights={other}")
    codes, outputs = on_two_hosts(arguments("digits_vit", data_dir, together, *more), second)
    assert 0 not in codes, outputs
    assert re.search(r"host 1 \(.*\) has failed: --workdir=", outputs[0][1])
    assert "contains a run of another config (weights:" in outputs[1][1]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("there", [True, False])
def test_two_hosts_with_different_weights_both_end(data_dir, tmp_path, weights_file, there):
    other = tmp_path / "vit.safetensors"
    if there:
        other.write_bytes(weights_file.read_bytes()[:-1] + b"?")
    codes, outputs = on_two_hosts(
        *(
            arguments("digits_vit", data_dir, tmp_path / "run", *with_weights(file))
            for file in (weights_file, other)
        )
    )
    assert 0 not in codes, outputs
    messages = [errors for _, errors in outputs]
    if there:
        assert all("not all hosts read the same numbers" in message for message in messages)
    else:
        assert re.search(r"host 1 \(.*\) has failed: weights=", messages[0])
        assert f"weights='{other}' does not exist" in messages[1]
    assert not any("Traceback" in message for message in messages)
    assert not RunDirectory(tmp_path / "run").has_checkpoint()
