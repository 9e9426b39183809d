"""Trains, or goes on: python -m launch.train --config configs/digits_vit.py --workdir DIR"""

from launch import main
from pnoise_jax import training

_CONFIG, _WORKDIR = main.define_config_flags(config_required=True)

if __name__ == "__main__":
    main.run(lambda: training.train(_CONFIG.value, _WORKDIR.value))
