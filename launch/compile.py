"""Compiles a run for TPUs or GPUs without any: pnoise compile --config FILE --topology v5e:16x16

Compiles the training and the evaluation step as they would run there, and prints what each device
needs: memory, operations, exchanges, and what bounds the speed. If the training step does not fit,
it looks for changes that make it fit. ImageNet need not be present. It works on any Linux machine;
TPUs need libtpu, pip install "pnoise_jax[tpu]", and NVIDIA GPUs need JAX's CUDA plugin, pip install
"pnoise_jax[cuda13]": --topology h100:8 --slices=4 means four hosts of eight GPUs. To try it without
either, --topology cpu:8 compiles for eight CPU devices.
"""

import functools
import json
import sys
from pathlib import Path

import jax
import ml_collections
from absl import flags

from pnoise_jax import writing
from pnoise_jax.studies import ahead_of_time
from pnoise_jax.terminal import create_console

from . import main, run_flags

_TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "Chip and shape of a slice: v5e:16x16, v5p:4x4x8; GPUs per host: a100:8, h100:8, h200:8; or "
    "cpu:8.",
    required=True,
)
_SLICES = flags.DEFINE_integer(
    "slices",
    1,
    "Number of slices, or of hosts with GPUs, connected by the data center's network.",
    lower_bound=1,
)
_EVALUATION = flags.DEFINE_bool("evaluation", True, "Also compile the evaluation step.")
_SUGGEST = flags.DEFINE_bool(
    "suggest", True, "If the training step does not fit, look for changes."
)
_OUT = flags.DEFINE_string("out", None, "JSON file for all figures.")


def run(config: ml_collections.ConfigDict) -> None:
    """Compiles the steps, prints and writes their needs; exits with 1 if a step does not fit."""
    jax.config.update("jax_platforms", "cpu")  # plugins would look for devices
    topology = ahead_of_time.open_topology(_TOPOLOGY.value, slices=_SLICES.value)
    if topology.chip is not None:  # programs for absent devices cannot be read back
        jax.config.update("jax_enable_compilation_cache", False)
    console = create_console()
    say = functools.partial(console.print, soft_wrap=True, highlight=False)
    if _OUT.value is not None:
        out = Path(_OUT.value).expanduser()
        writing.require_file_place(out, named=f"--out={_OUT.value!r}")
    experiment = ahead_of_time.build(config, topology)
    say(f"{config.model.name}, {config.batch_size} examples, on {topology.description}")
    outcome = ahead_of_time.compile_run(
        experiment,
        topology,
        evaluation=_EVALUATION.value,
        suggests=_SUGGEST.value,
        report=say,
    )
    for needs in outcome.programs:
        console.print(ahead_of_time.table(needs, topology))
        console.print(ahead_of_time.collectives_table(needs))
        say(ahead_of_time.describe_bound(needs, topology))
    if _OUT.value is not None:
        content = ahead_of_time.content(outcome, topology)
        writing.replace_file(out, json.dumps(content, indent=1) + "\n")
    if not outcome.fits:
        sys.exit(1)


if __name__ == "__main__":
    config = run_flags.define_config_flag()
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: run(config.value))
