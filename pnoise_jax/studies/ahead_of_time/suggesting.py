"""Searches for changes that make a config's program fit, by compiling it with each of them."""

from collections.abc import Callable, Iterator
from typing import Any

import ml_collections

from pnoise_jax.studies.ahead_of_time.compiling import (
    Needs,
    TooLargeError,
    build,
    compile_training,
)
from pnoise_jax.studies.ahead_of_time.topologies import Topology
from pnoise_jax.training import Experiment

_MOST_MICRO_BATCHES = 16


def suggest(
    config: ml_collections.ConfigDict, topology: Topology, report: Callable[[str], None]
) -> tuple[dict[str, Any], Needs, Experiment] | None:
    """Returns the first changes that make the training step fit, its needs, and the changed run.

    Returns None if no changes do.

    Args:
      config: a config whose training step does not fit.
      topology: the devices.
      report: called with a sentence about each failed attempt.
    """
    for changes in candidates(config, topology):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(changes)
        flags = " ".join(f"--config.{field}={value}" for field, value in changes.items())
        try:
            experiment = build(changed, topology)
            needs = compile_training(experiment, topology)
        except TooLargeError as error:
            report(f"with {flags}: {error}")
        except ValueError as error:
            report(f"{flags} is not possible: {error}")
        else:
            return changes, needs, experiment
    return None


def candidates(config: ml_collections.ConfigDict, topology: Topology) -> Iterator[dict[str, Any]]:
    """Yields changes that save memory, cheapest first.

    Recomputing activations adds a third to the computation. Splitting parameters adds an exchange
    in every layer. Micro-batches change which examples noise over the batch mixes.
    """
    remat = {"model.remat": True} if config.model.get("remat") is False else {}
    groups = len(topology.devices) // config.tensor_parallel
    split = {"fsdp": groups // topology.slices} if config.fsdp == 1 else {}
    yield from filter(None, [remat, split, remat | split if remat and split else {}])
    accumulate = 2 * config.accumulate
    while accumulate <= _MOST_MICRO_BATCHES * config.accumulate:
        if config.batch_size % (accumulate * groups) == 0:
            yield remat | split | {"accumulate": accumulate}
        accumulate *= 2
