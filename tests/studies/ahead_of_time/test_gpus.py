"""Compiling for absent NVIDIA GPUs, where JAX's plugin for CUDA is installed."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from pnoise_jax.models.parts import attention_kernels
from pnoise_jax.studies import ahead_of_time
from pnoise_jax.studies.ahead_of_time.chips import CHIPS, MEMORY_FRACTION
from tests.launch import command
from tests.training.runs import small_config

HAS_PLUGIN = any(map(importlib.util.find_spec, ("jax_cuda13_plugin", "jax_cuda12_plugin")))
WIDE = {"model.dim": 128, "batch_size": 64, "evaluation.batch_size": 8}
needs_plugin = pytest.mark.skipif(not HAS_PLUGIN, reason="JAX's plugin for CUDA is not installed")


@pytest.fixture(autouse=True)
def uncached():
    """Programs for absent devices cannot be read back."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


def training_needs(data_dir, topology, **changes):
    config = small_config(data_dir, **WIDE | changes)
    return ahead_of_time.compile_training(ahead_of_time.build(config, topology), topology)


@pytest.mark.skipif(HAS_PLUGIN, reason="JAX's plugin for CUDA is installed")
def test_missing_plugin_error_tells_how_to_install_it():
    with pytest.raises(ValueError, match=r'needs JAX.s plugin.*: pip install "pnoise_jax\[cuda13'):
        ahead_of_time.open_topology("h100:8")


@pytest.mark.parametrize("value", ["most", "0", "1.5"])
def test_an_invalid_share_of_memory_is_refused(value, monkeypatch):
    monkeypatch.setenv(MEMORY_FRACTION, value)
    with pytest.raises(ValueError, match=f"{MEMORY_FRACTION}='{value}': give the part"):
        ahead_of_time.open_topology("h100:8")


def test_the_memory_that_programs_can_use(monkeypatch):
    monkeypatch.delenv(MEMORY_FRACTION, raising=False)
    assert CHIPS["h100"].usable_memory() == 0.75 * 79.1
    assert CHIPS["v5e"].usable_memory() == 15.75
    monkeypatch.setenv(MEMORY_FRACTION, "0.9")
    assert CHIPS["h100"].usable_memory() == 0.9 * 79.1
    assert CHIPS["v5e"].usable_memory() == 15.75


@needs_plugin
@pytest.mark.parametrize(
    ("kind", "capability"), [("a100", "8.0"), ("h100", "9.0"), ("h200", "9.0")]
)
def test_hosts_of_gpus(kind, capability):
    two = ahead_of_time.open_topology(f"{kind}:8", slices=2)
    assert two.description == f"2 hosts of {kind}:8, 16 devices"
    assert {device.compute_capability for device in two.devices} == {capability}
    assert all(kind in device.device_kind.lower() for device in two.devices)
    for group in two.mesh(8).devices:
        assert len({device.process_index for device in group}) == 1
    with pytest.raises(
        ValueError, match=r"fsdp=16 does not divide the 8 devices of a host.*choose"
    ):
        two.mesh(16)
    with pytest.raises(ValueError, match="tensor_parallel=16 does not divide"):
        two.mesh(1, 16)


@needs_plugin
def test_the_training_step_is_measured(data_dir):
    gpus = ahead_of_time.open_topology("h100:8")
    whole, split = (training_needs(data_dir, gpus, fsdp=fsdp) for fsdp in (1, 8))
    assert whole.memory > whole.state > 2 * split.state > 0
    assert whole.flops == split.flops > 0
    # All arguments are read and all results written.
    assert whole.traffic > 2 * whole.state
    experiment = ahead_of_time.build(small_config(data_dir, **WIDE), gpus)
    parameters = sum(x.size for x in jax.tree.leaves(experiment.parameters))
    assert whole.sent == pytest.approx(4 * parameters * 2 * 7 / 8, rel=0.05)
    assert "all-gather" in {each.kind for each in split.collectives}
    assert set(whole.bounds(gpus)) == {"computation", "memory", "links"}
    evaluated = ahead_of_time.compile_evaluation(experiment, gpus)
    assert evaluated.sent < 20 * evaluated.examples


@needs_plugin
def test_hosts_exchange_over_the_network(data_dir):
    two = ahead_of_time.open_topology("h100:4", slices=2)
    for fsdp in (1, 4):
        needs = training_needs(data_dir, two, fsdp=fsdp)
        between = sum(each.sent_between(2, 8) for each in needs.collectives)
        kernels = 4 * (4 * 128**2 + 2 * 128 * 512)  # of its block, in float32
        assert kernels / 4 <= between <= 1.5 * kernels / 4  # a quarter each
        assert needs.bounds(two)["network"] == between / two.chip.network_bandwidth


@needs_plugin
def test_micro_batches_count_as_often_as_they_run(data_dir):
    gpu = ahead_of_time.open_topology("h100:1")
    one, two, four = (
        training_needs(data_dir, gpu, accumulate=n, batch_size=16 * n) for n in (1, 2, 4)
    )
    assert (two.flops, four.flops) == (2 * one.flops, 4 * one.flops)
    assert one.traffic < two.traffic < four.traffic < 4 * one.traffic


@needs_plugin
def test_an_error_names_the_memory_if_a_step_is_too_large(data_dir, monkeypatch):
    monkeypatch.setenv(MEMORY_FRACTION, "0.00001")
    gpu = ahead_of_time.open_topology("h100:1")
    with pytest.raises(ahead_of_time.TooLargeError, match=r"needs 0\.\dGiB of 0\.0GiB, 0% of the"):
        training_needs(data_dir, gpu, batch_size=128)


@needs_plugin
@pytest.mark.parametrize(("kind", "chosen"), [("h100:1", "cudnn"), ("cpu:8", "xla")])
def test_attention_is_chosen_for_the_absent_gpu(kind, chosen):
    topology = ahead_of_time.open_topology(kind)
    query = jax.ShapeDtypeStruct((2, 197, 12, 64), jnp.bfloat16)
    with topology.compiling():
        case = attention_kernels.case_here(query, bias=False, weighted=False, training=True)
    assert attention_kernels.choose("auto", case) == chosen
    here = attention_kernels.case_here(query, bias=False, weighted=False, training=True)
    assert here == dataclasses.replace(case, platform="cpu", capability=())


@needs_plugin
def test_attention_of_cudnn_needs_less_memory_and_as_many_operations(data_dir):
    gpu = ahead_of_time.open_topology("h100:1")
    changes = {"dtype": "bfloat16", "model.patch_size": 1, "model.num_heads": 4}
    changes["model.all_tokens"] = True  # in the only block
    xla, cudnn = (
        training_needs(data_dir, gpu, **changes, **{"model.attention_kernel": kernel})
        for kernel in ("xla", "cudnn")
    )
    assert cudnn.memory < xla.memory
    assert cudnn.traffic < xla.traffic
    assert 1 < cudnn.flops / xla.flops < 1.2  # it computes the logits again


@needs_plugin
def test_operations_of_cudnns_attention_are_counted():
    """Two products forward, like XLA's; five backward, as it computes the logits again."""
    arrays = [jax.ShapeDtypeStruct((2, 16, 4, 64), jnp.bfloat16)] * 3
    product = 2 * 2 * 4 * 16 * 16 * 64
    for kernel, backward in (("xla", 4), ("cudnn", 5)):

        def total(query, key, value, kernel=kernel):
            return attention_kernels.attend(query, key, value, None, kernel=kernel).sum()

        assert ahead_of_time.count_flops(total, *arrays) == 2 * product
        gradient = jax.grad(total, (0, 1, 2))
        assert ahead_of_time.count_flops(gradient, *arrays) == (2 + backward) * product


@needs_plugin
def test_noise_moves_hardly_more_than_the_minimum():
    mesh = ahead_of_time.open_topology("h100:1").mesh()
    results = ahead_of_time.noise_exchanges(64, (197, 64), "bfloat16", mesh)
    moved = {(each["noise"], each["pass"]): each["traffic"] / each["least"] for each in results}
    for direction in ("forward", "backward"):
        assert moved["cyclic shift", direction] == pytest.approx(1, abs=0.01)
        assert moved["reverse", direction] == pytest.approx(1, abs=0.01)
        assert moved["optimal", direction] == pytest.approx(1.5, abs=0.05)  # the mean comes first


@needs_plugin
@pytest.mark.parametrize("time", ["first", "second"])
def test_the_program_prints_the_needs(time, data_dir):
    """The second run does not try to read a cached program."""
    code, output, errors = command.run(
        "compile",
        "--config=digits_vit",
        "--topology=h100:2",
        f"--data_dir={data_dir}",
        "--config.batch_size=16",
        "--config.model.depth=1",
        "--noevaluation",
    )
    assert code == 0, errors
    assert "vit_ti_16, 16 examples, on h100:2, 2 devices" in output
    assert "GiB of 59.32 GiB" in output
    assert "all-reduce" in output
    assert not errors
