"""The command-line programs under one name: pnoise PROGRAM [--flags]

  show          shows what noise does to images and to the latent, in pictures
  train         trains a config in a work directory, or resumes it; then evaluates it
  evaluate      evaluates a run, or pretrained weights
  audit         finds out where an accuracy comes from
  sweep         trains and evaluates many variants of a config
  regularisers  compares the noise with other regularisers, all tuned alike
  adapt         trains methods of domain adaptation, and measures what noise adds to them
  robustness    measures accuracy against the strength of noise and attacks
  anomaly       detects classes that training has not seen, by reconstruction errors
  neighbours    measures how much the order of a test set reveals about labels
  prepare       prepares data sets from downloads or from your own folders
  compile       checks whether a run fits a TPU pod or GPUs, without them, and what bounds its speed
  export        writes a run's weights for other programs
  bridge        relates the leak of small models to how much they rely on the noisy site
  theory        checks the paper's theory: every figure of docs/theory.md
  benchmark     measures speed, and how often an audit errs

`pnoise PROGRAM --help` lists the flags. In a clone, `python -m launch.PROGRAM` does the same.
"""

import runpy
import sys

from pnoise_jax.registry import did_you_mean

PROGRAMS = ("show", "train", "evaluate", "audit", "sweep", "regularisers", "adapt", "robustness")
PROGRAMS += ("anomaly", "neighbours", "compile", "prepare", "export", "bridge", "theory")
PROGRAMS += ("benchmark",)


def run() -> None:
    """Runs the program that the first argument names, with the other arguments."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "help", "--help", "-help", "--helpshort", "--helpfull"):
        print(__doc__)
        return
    if name not in PROGRAMS:
        print(
            f"error: unknown program {name!r}{did_you_mean(name, PROGRAMS)}; name a program first, "
            "for example: pnoise train --config digits_vit --workdir DIR",
            file=sys.stderr,
        )
        sys.exit(64)  # `ending.WRONG_COMMAND`, which takes seconds to import
    del sys.argv[1]
    package = __name__.rpartition(".")[0] or __package__
    runpy.run_module(f"{package}.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run()
