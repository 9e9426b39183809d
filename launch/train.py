"""Trains, or goes on: python -m launch.train --config configs/digits_vit.py --workdir DIR"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from absl import flags

from pnoise_jax import training

from . import main

if __name__ == "__main__":
    config, workdir = main.define_run_flags(config_required=True)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: training.train(config.value, workdir.value))
