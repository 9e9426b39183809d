"""Evaluates a run: python -m launch.evaluate --workdir DIR [--config.noise.preset=…]

The config is the run's own, or a file given as --config; its noise, evaluation and data sections
may differ from the run's. The run's own evaluation.json stays: what measures something else goes
to a file of its own, in evaluations/ beside it.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from absl import flags

from pnoise_jax import training

from . import main

_OUT = flags.DEFINE_string("out", None, "Directory of the report; default: --workdir.")

if __name__ == "__main__":
    config, workdir = main.define_run_flags(config_required=False)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: training.evaluate(config.value, workdir.value, out=_OUT.value))
