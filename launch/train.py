"""Trains a config, or resumes it, and evaluates it: pnoise train --config CONFIG --workdir DIR

    pnoise train --config digits_vit --workdir /tmp/digits_vit

CONFIG is a Python file with get_config(), or the name of one of the package's configs. Any field
can be set on the command line: --config.seed=1, --config.duration="20 epochs". Checkpoints,
metrics.jsonl, event files for TensorBoard and the report, evaluation.json, are written to DIR. The
same command resumes a stopped run.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from absl import flags

from pnoise_jax import training

from . import main, run_flags

if __name__ == "__main__":
    config, workdir = run_flags.define_run_flags(config_required=True, workdir_may_be_url=True)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: training.train(config.value, workdir.value))
