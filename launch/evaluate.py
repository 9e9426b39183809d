"""Evaluates a run: python -m launch.evaluate --workdir DIR [--config CONFIG --config.noise.…]

Without --config it takes the run's own; with it, the noise, evaluation and data sections may differ
from the run's.
"""

from launch import main
from pnoise_jax import training

_CONFIG, _WORKDIR = main.define_config_flags(config_required=False)

if __name__ == "__main__":
    main.run(lambda: training.evaluate(_CONFIG.value, _WORKDIR.value))
