"""Evaluates a run: pnoise evaluate --workdir DIR [--config.noise.preset=…]

The config is that of the run, or a file given with --config; its noise, evaluation and data
sections may differ from the run's. The evaluation.json of the run does not change: other
measurements are written to separate files in DIR/evaluations.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from absl import flags

from pnoise_jax import training

from . import main

_OUT = flags.DEFINE_string("out", None, "Directory for the report; default: --workdir.")

if __name__ == "__main__":
    config, workdir = main.define_run_flags(config_required=False)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: training.evaluate(config.value, workdir.value, out=_OUT.value))
