"""Measures speed: python -m launch.benchmark SUBCOMMAND [--flags]

Subcommands:
  noise  the noises alone: structured against matmul against the published code's loop
  step   a whole training step with noise against the plain one
  sweep  runs that share a program: trained together, by vmap, against one after another
  audit  all protocols of an audit against one clean evaluation
  data   the input pipeline: ours against tf.data and against a PIL loop over folders
  verdicts  how often an audit errs, on simulated functions with a known truth
  adapt  a step of each method of domain adaptation against the sum of its parts
  models the forward pass and training step of each family against timm's

python -m launch.benchmark SUBCOMMAND --help lists the flags. Every figure printed was measured by
the command that prints it, after a check that the alternatives compute the same.
"""

import importlib
import sys

from pnoise_jax.registry import did_you_mean

# Imported only when chosen, so that each has flags of its own; each has a main() without arguments.
SUBCOMMANDS = ("noise", "step", "sweep", "audit", "data", "adapt", "models", "verdicts")


def choose(arguments: list[str]) -> str:
    """The subcommand that the first argument names.

    Exits with a message, code 1, where it names none; prints the help and exits where it asks.
    """
    name = arguments[0] if arguments else ""
    if name in ("-h", "help", "--help", "-help", "--helpshort", "--helpfull"):
        print(__doc__)
        sys.exit(0)
    if name in SUBCOMMANDS:
        return name
    problem = f"unknown subcommand {name!r}" if name else "no subcommand"
    sys.exit(
        f"error: {problem}{did_you_mean(name, SUBCOMMANDS)}; give it first, such as: "
        "python -m launch.benchmark noise"
    )


if __name__ == "__main__":
    module = importlib.import_module(f".{choose(sys.argv[1:])}", __package__)
    del sys.argv[1]
    from absl import flags

    from .. import main

    for defining in (main, module):
        flags.adopt_module_key_flags(defining)  # for --help
    main.run(module.main, keep_compiled=False)
