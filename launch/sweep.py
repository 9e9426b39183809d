"""Trains and evaluates many cells: python -m launch.sweep --config CONFIG --workdir DIR [--flags]

Beside get_config() the config file has sweep(), which returns a dict for each cell, the fields that
it changes: {"noise.strength": 0.3, "noise.layer": "4", "seed": 1}. Flags such as --config.steps=100
change the config of all cells.

    python -m launch.sweep --config configs/figure2.py:vit --workdir /tmp/figure2_vit

DIR gets results.csv, a row for each cell; summary.csv, means over seeds with intervals; figure.svg
and figure.png; and in DIR/runs a work directory of every training, which launch.evaluate takes. The
same command goes on where it was stopped. Where DIR has results of other cells as well, summary and
figure are named by their cells, and those of the others stay.

In a job array each job does a part of the sweep in the same DIR, the first of four jobs with
--shard=0/4. The job that finishes last writes the summary; so does the same command without
--shard.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from absl import flags

from pnoise_jax.studies.sweep import WAYS, Shard, run_sweep

from . import main

_TOGETHER = flags.DEFINE_enum(
    "together",
    "auto",
    WAYS,
    "Train runs that share a program together, by vmap; auto takes whichever is measured faster.",
)
_SHARD = flags.DEFINE_string(
    "shard",
    None,
    "INDEX/COUNT: do every COUNT-th training, starting with number INDEX, which counts from 0.",
)


def sweep(config, workdir: str) -> None:
    """Reads the cells and runs them."""
    shard = None if _SHARD.value is None else Shard.parse(_SHARD.value)
    cells, set_by_flags = main.read_sweep()
    run_sweep(
        config, cells, workdir, together=_TOGETHER.value, shard=shard, set_by_flags=set_by_flags
    )


if __name__ == "__main__":
    _config, _workdir = main.define_run_flags(config_required=True)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: sweep(_config.value, _workdir.value))
