"""Compiles a run for a TPU pod without one: pnoise compile --config FILE --topology v5e:16x16

Compiles the training and the evaluation step as they would run there, and says what they need of
each device: memory, operations, exchanges, and what bounds the speed. Where the training step does
not fit, it tries what would. ImageNet need not be there. Needs libtpu, on any Linux machine:
pip install "pnoise_jax[tpu]". --topology cpu:8 compiles for eight CPU devices, to try it.
"""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import ml_collections
from absl import flags

from pnoise_jax import writing
from pnoise_jax.studies import ahead_of_time
from pnoise_jax.terminal import create_console

from . import main

_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "Chips and the shape of a slice: v5e:16x16, v5p:4x4x8, cpu:8.", required=True
)
_SLICES = flags.DEFINE_integer(
    "slices", 1, "Slices that the data center's network connects.", lower_bound=1
)
_EVALUATION = flags.DEFINE_bool("evaluation", True, "Compile the evaluation step as well.")
_SUGGEST = flags.DEFINE_bool("suggest", True, "Where the training does not fit, try what does.")
_OUT = flags.DEFINE_string("out", None, "File for all figures, as JSON.")


def run(config: ml_collections.ConfigDict) -> None:
    """Compiles, prints and writes; ends with 1 where the training step does not fit."""
    jax.config.update("jax_platforms", "cpu")  # libtpu would look for chips
    topology = ahead_of_time.open_topology(_TOPOLOGY.value, slices=_SLICES.value)
    console = create_console()
    say = functools.partial(console.print, soft_wrap=True, highlight=False)
    if _OUT.value is not None:
        out = Path(_OUT.value).expanduser()
        writing.require_places(out.parent, named=f"--out={_OUT.value!r}", files=(out.name,))
    experiment = ahead_of_time.build(config, topology)
    say(f"{config.model.name}, {config.batch_size} examples, on {topology.description}")
    programs, changes = _compile(experiment, topology, say)
    for needs in programs:
        console.print(ahead_of_time.table(needs, topology))
        console.print(ahead_of_time.collectives_table(needs))
        say(ahead_of_time.describe_bound(needs, topology))
    if _OUT.value is not None:
        content = ahead_of_time.content(programs, topology, fits=not changes, changes=changes)
        writing.replace_file(out, json.dumps(content, indent=1) + "\n")
    if changes or not programs:
        sys.exit(1)


def _compile(experiment, topology, say) -> tuple[list[ahead_of_time.Needs], dict[str, Any]]:
    """What fits, and what was changed in the config for it; nothing where nothing fits."""
    try:
        programs = [ahead_of_time.compile_training(experiment, topology)]
    except ahead_of_time.TooLargeError as error:
        say(f"Too large: {error}.")
        if not _SUGGEST.value:
            return [], {}
        found = ahead_of_time.suggest(experiment.config, topology, say)
        if found is None:
            say("Nothing that was tried fits: take more devices, or a smaller model or batch.")
            return [], {}
        changes, needs = found
        fields = " ".join(f"--config.{field}={value}" for field, value in changes.items())
        say(f"It fits with {fields}:")
        return [needs], changes
    if _EVALUATION.value:
        programs.append(ahead_of_time.compile_evaluation(experiment, topology))
    return programs, {}


if __name__ == "__main__":
    config = main.define_config_flag()
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: run(config.value))
