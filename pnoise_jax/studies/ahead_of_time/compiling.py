"""Compiles the steps of a run for absent devices, and reports what the programs need."""

import dataclasses
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from pnoise_jax import evaluation, parallel, training
from pnoise_jax.parallel import Collective
from pnoise_jax.studies.ahead_of_time import stand_in
from pnoise_jax.studies.ahead_of_time.chips import MEMORY_FRACTION, Chip
from pnoise_jax.studies.ahead_of_time.operations import flops_of
from pnoise_jax.studies.ahead_of_time.topologies import Topology

_TOO_LARGE = (
    re.compile(r"[Uu]sed ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?) hbm"),
    re.compile(r"\(([\d.]+[KMGT]?)\) exceeds available HBM \(([\d.]+[KMGT]?)\)"),
)


class TooLargeError(ValueError):
    """A program does not fit in device memory; the message says how much it needs and has."""


@dataclasses.dataclass(frozen=True)
class Needs:
    """What one call of a compiled program needs.

    Attributes:
      program: "training step" or "evaluation step".
      examples: examples per call, over all devices.
      memory: bytes per device: arguments, results and intermediate values.
      state: bytes per device that stay there between calls.
      flops: floating-point operations per device, a lower bound: the compiler counts loops within
        the loss, such as the steps of PGD, once. For GPUs the compiler counts nothing, so these are
        the operations of the matrix products and convolutions, from `flops_of`.
      traffic: bytes that a device reads from and writes to its memory, also a lower bound. For
        GPUs, counted by `parallel.count_traffic`.
      collectives: the exchanges between devices, largest first.
      seconds: compile time.
      shared: number of devices that process the same examples because they split matrix products.
    """

    program: str
    examples: int
    memory: int
    state: int
    flops: float
    traffic: float
    collectives: tuple[Collective, ...]
    seconds: float
    shared: int = 1

    @property
    def sent(self) -> float:
        """Bytes that a device sends to others."""
        return sum(each.sent for each in self.collectives)

    def bounds(self, topology: Topology) -> dict[str, float]:
        """Returns lower bounds on a call's seconds by resource; {} on CPUs.

        The resources are "computation", "memory", "links" and, between slices, "network". Each
        bound assumes the resource's peak rate.
        """
        chip = topology.chip
        if chip is None:
            return {}
        slices = topology.slices, len(topology.devices)
        within = (each.sent for each in self.collectives if not each.is_between(*slices))
        bounds = {
            "computation": self.flops / chip.flops,
            "memory": self.traffic / chip.memory_bandwidth,
            "links": sum(within) / chip.link_bandwidth,
        }
        if topology.slices > 1 and chip.network_bandwidth is not None:
            across = (each.sent_between(*slices) for each in self.collectives)
            bounds["network"] = sum(across) / chip.network_bandwidth
        return bounds


def build(config: ml_collections.ConfigDict, topology: Topology) -> training.Experiment:
    """Builds the experiment of a config and checks it for these devices.

    ImageNet need not be present: see `stand_in.load`.

    Raises:
      ValueError, OSError: as `training.build` and `training.check_training`; or the task cannot be
        compiled ahead of time.
    """
    config = config.copy_and_resolve_references()
    config.weights, config.weights_required = None, False  # their values do not affect the program
    with topology.compiling():
        experiment = training.build(config, load=stand_in.load)
        training.check_training(experiment, devices=len(topology.devices))
    topology.mesh(config.fsdp, config.tensor_parallel)
    batch = type(experiment.task).open_batches
    if batch is not training.Task.open_batches or experiment.task.preparations:
        raise ValueError(
            f"task.name={config.task.name!r}: only tasks whose batches are images and labels can "
            "be compiled ahead of time; set task.name='classification'"
        )
    return experiment


def compile_training(experiment: training.Experiment, topology: Topology) -> Needs:
    """Compiles the training step.

    Raises:
      TooLargeError: it does not fit in device memory.
    """
    config = experiment.config
    mesh = topology.mesh(config.fsdp, config.tensor_parallel)
    with topology.compiling():
        program = training.create_program(experiment, mesh)
    lead = (config.accumulate,) if config.accumulate > 1 else ()
    shape = (*lead, config.batch_size // config.accumulate)
    batch = {
        "image": jax.ShapeDtypeStruct(
            (*shape, *experiment.test_data.require_image_shape()), jnp.uint8
        ),
        "label": jax.ShapeDtypeStruct(shape, jnp.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = sum(_local_bytes(leaf) for leaf in jax.tree.leaves(program.like))
    with topology.compiling():
        traced = program.step.trace(program.like, batch, key)
    needs = _measure(
        traced,
        "training step",
        topology,
        examples=config.batch_size,
        state=state,
        shared=config.tensor_parallel,
    )
    if config.accumulate == 1 or topology.has_gpus:
        return needs
    # The compiler counts the loop over micro-batches only once.
    update = _measure_update(experiment, program, topology)
    return dataclasses.replace(
        needs,
        flops=update.flops + config.accumulate * (needs.flops - update.flops),
        traffic=update.traffic + config.accumulate * (needs.traffic - update.traffic),
        seconds=needs.seconds + update.seconds,
    )


def _measure_update(
    experiment: training.Experiment, program: training.Program, topology: Topology
) -> Needs:
    """Measures the optimiser's update, which runs once per step for any number of micro-batches."""
    optimizer = optax.with_extra_args_support(experiment.optimizer)
    params, opt_state = program.like.params, program.like.opt_state

    def update(grads: Any, opt_state: Any, params: Any) -> Any:
        changes, opt_state = optimizer.update(grads, opt_state, params, noise_key=jax.random.key(0))
        return optax.apply_updates(params, changes), opt_state

    places = jax.tree.map(lambda leaf: leaf.sharding, (params, opt_state))
    traced = jax.jit(update, out_shardings=places).trace(params, opt_state, params)
    return _measure(traced, "update", topology, examples=0, state=0)


def compile_evaluation(experiment: training.Experiment, topology: Topology) -> Needs:
    """Compiles the evaluation step of the first protocol with noise, else of the first protocol.

    Raises:
      TooLargeError: it does not fit in device memory.
    """
    mesh = topology.mesh(experiment.config.fsdp, experiment.config.tensor_parallel)
    with topology.compiling():
        state = experiment.abstract_state(mesh)
    variables = state.variables()
    protocols = experiment.protocols
    protocol = next((each for each in protocols if each.noise), protocols[0])
    with topology.compiling():
        traced, examples = evaluation.trace(
            experiment.model,
            variables,
            protocol,
            images=experiment.test_data.require_image_shape(),
            size=len(experiment.test_data),
            mesh=mesh,
            mean=experiment.mean,
            std=experiment.std,
            views=experiment.config.evaluation.views,
        )
    return _measure(
        traced,
        "evaluation step",
        topology,
        examples=examples,
        state=sum(_local_bytes(leaf) for leaf in jax.tree.leaves(variables)),
        shared=experiment.config.tensor_parallel,
    )


def _local_bytes(leaf: Any) -> int:
    shape = leaf.sharding.shard_shape(leaf.shape)
    return int(jax.ShapeDtypeStruct(shape, leaf.dtype).size) * leaf.dtype.itemsize


def _measure(
    traced: jax.stages.Traced,
    program: str,
    topology: Topology,
    *,
    examples: int,
    state: int,
    shared: int = 1,
) -> Needs:
    lowered = traced.lower()
    began = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        matches = [match for pattern in _TOO_LARGE if (match := pattern.search(str(error)))]
        need = f"{matches[0][1]}iB of {matches[0][2]}iB" if matches else str(error).splitlines()[0]
        raise TooLargeError(
            f"the {program} does not fit in device memory: it needs {need}"
        ) from error
    seconds = time.perf_counter() - began
    memory: Any = compiled.memory_analysis()
    arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes
    needed = arguments - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    devices, text = len(topology.devices), compiled.as_text() or ""
    if topology.chip is not None and topology.chip.is_gpu:  # the compiler counts nothing on GPUs
        _require_memory(program, needed, topology.chip)
        flops, traffic = flops_of(traced.jaxpr.jaxpr) / devices, float(parallel.count_traffic(text))
    else:
        cost = compiled.cost_analysis() or {}
        flops, traffic = cost.get("flops", 0.0), cost.get("bytes accessed", 0.0)
    return Needs(
        program=program,
        examples=examples,
        memory=needed,
        state=state,
        flops=flops,
        traffic=traffic,
        collectives=tuple(parallel.find_collectives(text, devices)),
        seconds=seconds,
        shared=shared,
    )


def _require_memory(program: str, needed: int, gpu: Chip) -> None:
    """Raises TooLargeError if a program needs more than the GPU has, which XLA does not check."""
    usable = gpu.usable_memory()
    if needed > usable * 2**30:
        raise TooLargeError(
            f"the {program} does not fit in device memory: it needs "
            f"{needed / 2**30:.1f}GiB of {usable:.1f}GiB, {usable / gpu.memory:.0%} of the "
            f"{gpu.memory:.1f}GiB of {gpu.name} ({MEMORY_FRACTION} sets this share)"
        )
