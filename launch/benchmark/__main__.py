"""Measures speed: pnoise benchmark SUBCOMMAND [--flags]

Subcommands:
  noise       the noise alone: structured, as a matmul, and as the published code's loop
  draws       the noises that draw random numbers, against drawing alone
  exchanges   what each noise exchanges and moves in memory, read from the compiled program
  checkpoint  saving and restoring a training state, and the delay in training
  step        a training step with noise against one without
  sweep       training several runs at once, with vmap, against one after another
  audit       all protocols of an audit against one clean evaluation
  data        our input pipeline against tf.data and against a PIL loop over folders
  adapt       a gradient of each method of domain adaptation against the sum of its parts
  models      the forward pass and training step of each family of models against timm's
  memory      the peak memory of loading weights, training and an audit
  growth      how the cost of a step, an audit and a sweep's plan grows with their sizes
  scaling     what more devices and hosts add to a training step and to the input pipeline
  gpu         models, noises and sweeps at the sizes of a large GPU, in one command
  verdicts    how often an audit is wrong, on simulated functions for which the truth is known

pnoise benchmark SUBCOMMAND --help lists the flags. The alternatives take turns, after a
check that they compute the same results. A ratio compares times of the same round.
"""

import importlib
import sys

from pnoise_jax.registry import did_you_mean

# Only the chosen module is imported, because each defines its own flags. Each has a main().
SUBCOMMANDS = (
    "noise",
    "draws",
    "exchanges",
    "checkpoint",
    "step",
    "sweep",
    "audit",
    "data",
    "adapt",
    "models",
    "memory",
    "growth",
    "scaling",
    "gpu",
    "verdicts",
)


def choose(arguments: list[str]) -> str:
    """The subcommand that the first argument names.

    If it asks for help, the help is printed and the program exits; if it names no subcommand, the
    program exits with a message and code 1.
    """
    name = arguments[0] if arguments else ""
    if name in ("-h", "help", "--help", "-help", "--helpshort", "--helpfull"):
        print(__doc__)
        sys.exit(0)
    if name in SUBCOMMANDS:
        return name
    problem = f"unknown subcommand {name!r}" if name else "no subcommand"
    sys.exit(
        f"error: {problem}{did_you_mean(name, SUBCOMMANDS)}; name one first, for example: "
        "pnoise benchmark noise"
    )


if __name__ == "__main__":
    module = importlib.import_module(f".{choose(sys.argv[1:])}", __package__)
    del sys.argv[1]
    from absl import flags

    from .. import main

    for defining in (main, module):
        flags.adopt_module_key_flags(defining)  # for --help
    main.run(module.main, keep_compiled=False)
