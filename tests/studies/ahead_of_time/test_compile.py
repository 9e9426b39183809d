"""Compiling for absent devices: for CPUs, and for TPUs where libtpu is installed.

test_gpus.py compiles for GPUs.
"""

import dataclasses
import importlib.util
import json

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from pnoise_jax import data
from pnoise_jax.parallel import Collective
from pnoise_jax.studies import ahead_of_time
from pnoise_jax.studies.ahead_of_time import stand_in
from pnoise_jax.studies.ahead_of_time.chips import CHIPS
from tests.launch import command
from tests.training.runs import small_config

pytestmark = pytest.mark.long

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
WIDE = {"model.dim": 128, "batch_size": 64, "evaluation.batch_size": 8}


@pytest.fixture(scope="module")
def topology():
    return ahead_of_time.open_topology("cpu:8")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("v5e", {}, "topology='v5e': give the shape of a slice of v5e, such as v5e:4x4"),
        ("v5e:4x4x4", {}, "give the shape of a slice of v5e, such as v5e:4x4"),
        ("v5p:4x4", {}, "give the shape of a slice of v5p, such as v5p:2x2x2"),
        ("v5e:16x32", {}, "with sides of at most 16 chips"),
        ("v5e:0x4", {}, "with sides of at most 16 chips"),
        ("v9:4x4", {}, "unknown kind of chip 'v9'.*; give one such as v5e:4x4"),
        ("v5:4x4", {}, "unknown kind of chip 'v5'; did you mean"),
        ("v5e:4x4", {"slices": 0}, "slices=0: give a number of at least 1"),
        ("h100", {}, "topology='h100': give the number of GPUs per host, h100:1 to h100:8"),
        ("h100:0", {}, "topology='h100:0': give the number of GPUs per host, h100:1 to h100:8"),
        ("h100:9", {}, "h100:1 to h100:8; slices is the number of hosts"),
        ("a100:4x4", {}, "topology='a100:4x4': give the number of GPUs per host, a100:1 to a100:8"),
        ("h10:8", {}, "topology='h10:8': unknown kind of chip 'h10'; did you mean 'h100'"),
        ("h200:8", {"slices": 0}, "slices=0: give a number of at least 1"),
        ("cpu", {}, "give cpu:8"),
        ("cpu:0", {}, "give cpu:8"),
        ("cpu:8", {"slices": 2}, "and a single slice"),
        ("cpu:99", {}, "JAX has already started with 8 CPU devices"),
    ],
)
def test_unknown_topologies_are_refused(name, options, message):
    jax.devices()  # so that JAX has started
    with pytest.raises(ValueError, match=message):
        ahead_of_time.open_topology(name, **options)


@pytest.mark.skipif(HAS_LIBTPU, reason="libtpu is installed")
def test_missing_libtpu_error_tells_how_to_install_it():
    with pytest.raises(ValueError, match=r'needs libtpu.*: pip install "pnoise_jax\[tpu\]"'):
        ahead_of_time.open_topology("v5e:4x4")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 60}, "batch_size=60 is not divisible by 8 devices"),
        ({"fsdp": 3}, "fsdp=3 does not divide the 8 devices"),
        ({"tensor_parallel": 3}, "tensor_parallel=3 does not divide the 8 devices"),
        ({"tensor_parallel": 4}, "tensor_parallel=4 does not divide num_heads=2 of the model"),
        ({"fsdp": 8, "model.dim": 16}, "fsdp=8 would split no parameter"),
        ({"data.name": "no_such_set"}, "no_such_set"),
    ],
)
def test_bad_configs_are_refused_before_compiling(topology, data_dir, changes, message):
    with pytest.raises((ValueError, OSError), match=message):
        ahead_of_time.build(small_config(data_dir, **WIDE | changes), topology)


def test_the_training_step_is_measured(topology, data_dir):
    whole, split = (
        ahead_of_time.compile_training(
            ahead_of_time.build(small_config(data_dir, fsdp=fsdp, **WIDE), topology), topology
        )
        for fsdp in (1, 8)
    )
    assert whole.examples == 64
    assert whole.memory > whole.state > 2 * split.state > 0
    # The parts of the last block's folded kernel are each multiplied on one device.
    assert 0.7 * whole.flops < split.flops < 1.1 * whole.flops
    # Each of 8 devices sends 2 * 7 / 8 of the gradients, 4 bytes each.
    experiment = ahead_of_time.build(small_config(data_dir, **WIDE), topology)
    parameters = sum(x.size for x in jax.tree.leaves(experiment.parameters))
    assert whole.sent == pytest.approx(4 * parameters * 2 * 7 / 8, rel=0.05)
    assert {each.kind for each in whole.collectives} == {"all-reduce"}
    assert "all-gather" in {each.kind for each in split.collectives}


def test_the_evaluation_step_keeps_whole_batches_on_a_device(topology, data_dir):
    """So that noise over a batch exchanges no activations."""
    config = small_config(data_dir, **WIDE, **{"data.test_split": "test"})
    experiment = ahead_of_time.build(config, topology)
    needs = ahead_of_time.compile_evaluation(experiment, topology)
    assert needs.examples == 1024  # 1000 in whole batches of 8 on each of 8 devices
    assert needs.sent < 20 * needs.examples  # scores, a few numbers each


def test_bounds_are_computed_from_the_chip(topology):
    chip = CHIPS["v5e"]
    everybody, neighbours = (tuple(range(512)),), (tuple(range(16)),)
    exchanged = (
        Collective("all-reduce", 512, 1000, 3, everybody),
        Collective("all-gather", 16, 800, 1, neighbours),
    )
    needs = ahead_of_time.Needs("training step", 4096, 1, 1, 2e12, 3e9, exchanged, 1.0)
    two = ahead_of_time.Topology("v5e:16x16", 2, chip, (None,) * 512)
    reduced, gathered = 3 * 2 * 1000 * 511 / 512, 800 * 15 / 16
    assert needs.bounds(two) == pytest.approx(
        {
            "computation": 2e12 / 197e12,
            "memory": 3e9 / 819e9,
            "links": (reduced + gathered) / 200e9,
            "network": 3 * 2 * 1000 / 2 / 256 / (6.4e12 / 8 / 256),
        }
    )
    assert "network" not in needs.bounds(dataclasses.replace(two, slices=1))
    assert needs.bounds(topology) == {}
    sentence = ahead_of_time.describe_bound(needs, two)
    assert "It is bound by computation: at most 403,456 examples/s" in sentence
    assert "not measurements" in sentence


def test_changes_that_are_tried_if_a_step_does_not_fit(topology, data_dir):
    config = small_config(data_dir, **WIDE)
    assert list(ahead_of_time.candidates(config, topology)) == [
        {"model.remat": True},
        {"fsdp": 8},
        {"model.remat": True, "fsdp": 8},
        {"model.remat": True, "fsdp": 8, "accumulate": 2},
        {"model.remat": True, "fsdp": 8, "accumulate": 4},
        {"model.remat": True, "fsdp": 8, "accumulate": 8},
    ]
    config.model.remat, config.fsdp = True, 8
    assert next(iter(ahead_of_time.candidates(config, topology))) == {"accumulate": 2}


def test_imagenet_need_not_be_prepared(tmp_path):
    train = stand_in.load("imagenet2012", split="train", data_dir=tmp_path)
    assert (len(train), train.num_classes) == (1281167, 1000)
    with pytest.raises(OSError, match="imagenet2012"):
        stand_in.load("imagenet2012", split="test", data_dir=tmp_path)
    assert isinstance(train, data.Dataset)


def test_the_program_prints_and_writes_the_needs(data_dir, tmp_path):
    out = tmp_path / "needs.json"
    code, output, errors = command.run(
        "compile",
        "--config=digits_vit",
        "--topology=cpu:4",
        f"--data_dir={data_dir}",
        "--config.batch_size=16",
        "--config.model.depth=1",
        "--noevaluation",
        f"--out={out}",
    )
    assert code == 0, errors
    assert "vit_ti_16, 16 examples, on cpu:4, 4 devices" in output
    assert "all-reduce" in output
    content = json.loads(out.read_text())
    assert (content["devices"], content["fits"], content["changes"]) == (4, True, {})
    assert content["programs"][0]["flops"] > 0


@pytest.mark.slow
def test_shared_products_save_memory_and_computation(topology, data_dir):
    two_blocks = WIDE | {"model.depth": 2}  # the last one computes only what the head reads
    whole, shared = (
        ahead_of_time.compile_training(
            ahead_of_time.build(small_config(data_dir, tensor_parallel=n, **two_blocks), topology),
            topology,
        )
        for n in (1, 2)
    )
    assert shared.state == pytest.approx(whole.state / 2, rel=0.1)
    # Each device has twice the examples, and half of each product.
    assert shared.flops == pytest.approx(whole.flops, rel=0.2)
    pairs = [each for each in shared.collectives if each.groups == ((0, 1), (2, 3), (4, 5), (6, 7))]
    tokens = 64 // 4 * 5
    sums = [each for each in pairs if (each.kind, each.size) == ("all-reduce", 4 * tokens * 128)]
    # Two branches of the first block, forward and backward.
    assert sum(each.count for each in sums) == 4


@pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed")
@pytest.mark.parametrize("topology", ["v5e:4x4", "v6e:4x4", "v5p:2x2x2"])
def test_groups_on_pods(topology):
    """Groups may be smaller than a side of the pod; products are shared within a host."""
    pod = ahead_of_time.open_topology(topology)
    assert dict(pod.mesh(2).shape)["fsdp"] == 2
    groups = pod.mesh(2, 4).devices.reshape(-1, 4)
    assert all(len({device.process_index for device in group}) == 1 for group in groups)
    with pytest.raises(ValueError, match="tensor_parallel=8 does not divide the 4 devices of a ho"):
        pod.mesh(1, 8)


@pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed")
def test_gradients_of_split_kernels_are_scattered_on_a_pod(data_dir):
    """A device sends its gradient once; an all-reduce would send it twice."""
    pod = ahead_of_time.open_topology("v5e:2x4")
    config = small_config(data_dir, fsdp=8, **WIDE)
    needs = ahead_of_time.compile_training(ahead_of_time.build(config, pod), pod)
    kernels = [c for c in needs.collectives if c.size >= 2**19 and c.kind != "all-gather"]
    assert kernels
    assert {each.kind for each in kernels} == {"reduce-scatter"}


@pytest.fixture
def uncached():
    """JAX warns that libtpu's programs cannot be read back without a TPU."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


@pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed")
@pytest.mark.usefixtures("uncached")
@pytest.mark.parametrize("fsdp", [1, 8])
def test_gradients_go_from_slice_to_slice(data_dir, fsdp):
    """An eighth of each kernel, as the devices of a slice share the work."""
    one, two = (ahead_of_time.open_topology("v5e:2x4", slices=slices) for slices in (1, 2))
    config = small_config(data_dir, fsdp=fsdp, **WIDE)
    single, both = (
        ahead_of_time.compile_training(ahead_of_time.build(config, pod), pod) for pod in (one, two)
    )
    assert "network" not in single.bounds(one)
    between = sum(each.sent_between(2, 16) for each in both.collectives)
    kernels = 4 * (4 * 128**2 + 2 * 128 * 512)  # of its block, in float32
    assert kernels / 8 <= between <= 1.5 * kernels / 8
    assert both.bounds(two)["network"] == between / two.chip.network_bandwidth
    within = [each for each in both.collectives if not each.is_between(2, 16)]
    sent = sum(each.sent for each in within)
    assert both.bounds(two)["links"] == sent / two.chip.link_bandwidth


@pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed")
def test_the_program_compiles_for_an_absent_pod(data_dir, tmp_path):
    arguments = ["--config=digits_vit", "--topology=v5e:2x2", f"--data_dir={data_dir}"]
    code, output, errors = command.run("compile", *arguments, "--config.batch_size=64")
    assert code == 0, errors
    assert "GiB of 15.75 GiB" in output
    assert "It is bound by" in output


def compiled_with(topology, data_dir, monkeypatch, too_large, **options):
    """The outcome and the report if steps for which ``too_large`` is true do not fit."""
    from pnoise_jax.studies.ahead_of_time import outcome, suggesting

    def refuse(program, function):
        def compiled(experiment, topology):
            if too_large(program, experiment.config):
                raise ahead_of_time.TooLargeError(f"the {program} step does not fit")
            return function(experiment, topology)

        return compiled

    training = refuse("training", lambda e, t: NEEDS)
    monkeypatch.setattr(outcome, "compile_training", training)
    monkeypatch.setattr(suggesting, "compile_training", training)
    monkeypatch.setattr(outcome, "compile_evaluation", refuse("evaluation", lambda e, t: NEEDS))
    lines = []
    config = small_config(data_dir, **WIDE, **{"noise.train": True})
    result = ahead_of_time.compile_run(
        ahead_of_time.build(config, topology),
        topology,
        **{"evaluation": True, "suggests": True} | options,
        report=lines.append,
    )
    return result, " ".join(lines)


NEEDS = ahead_of_time.Needs("training step", 64, 1, 1, 1.0, 1.0, (), 1.0)


def test_a_run_that_does_not_fit_is_never_said_to_fit(topology, data_dir, monkeypatch):
    run = (topology, data_dir, monkeypatch)
    result, report = compiled_with(*run, lambda program, config: False)
    assert (result.fits, result.changes, len(result.programs), report) == (True, {}, 2, "")

    result, report = compiled_with(*run, lambda program, config: program == "training")
    assert (result.fits, result.changes, result.programs) == (False, {}, ())
    assert "None of the changes tried fits" in report
    assert ahead_of_time.content(result, topology)["fits"] is False

    result, report = compiled_with(
        *run, lambda program, config: program == "training", suggests=False
    )
    assert (result.fits, result.programs) == (False, ())

    result, report = compiled_with(
        *run, lambda program, config: program == "training" and config.accumulate < 2
    )
    assert not result.fits
    assert result.changes == {"model.remat": True, "fsdp": 8, "accumulate": 2}
    assert len(result.programs) == 2  # the evaluation of the changed run as well
    assert "noise over the batch mixes 32 examples: a different experiment" in report

    result, report = compiled_with(*run, lambda program, config: program == "evaluation")
    assert (result.fits, result.changes, len(result.programs)) == (False, {}, 1)
    assert "Lower evaluation.batch_size" in report


def test_micro_batches_do_not_multiply_the_update(topology, data_dir):
    """Twice the examples in twice as many micro-batches: twice the passes, and one update."""

    def needs(accumulate):
        changes = WIDE | {"accumulate": accumulate, "batch_size": 8 * accumulate}
        experiment = ahead_of_time.build(small_config(data_dir, **changes), topology)
        return ahead_of_time.compile_training(experiment, topology)

    two, four, eight = (needs(accumulate).flops for accumulate in (2, 4, 8))
    assert eight - four == pytest.approx(2 * (four - two), rel=0.01)
    assert 0 < four - two < two  # which includes the update
