"""Trains and evaluates many cells: pnoise sweep --config CONFIG --workdir DIR [--flags]

The config file defines sweep(), which returns a list of cells. A cell is a dict of
the fields that it changes: {"noise.strength": 0.3, "noise.layer": 4, "seed": 1}. Flags such as
--config.steps=100 change the config of all cells.

    pnoise sweep --config figure2:vit --workdir /tmp/figure2_vit

These are written to DIR: results.csv, with a row for each cell; summary.csv, with means over seeds
and intervals; figure.svg and figure.png; and in DIR/runs a work directory for every training, which
pnoise evaluate accepts. The same command resumes a stopped sweep. If DIR also has results of other
cells, the new summary and figure get different names.

In a job array, each job does a part of the sweep in the same DIR: the first of four jobs uses
--shard=0/4. The job that finishes last writes the summary; so does the same command without
--shard.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from absl import flags

from pnoise_jax.studies.sweep import WAYS, Shard, run_sweep

from . import main, run_flags

_TOGETHER = flags.DEFINE_enum(
    "together",
    "auto",
    WAYS,
    "Train runs that share a program at the same time, with vmap; auto measures and uses the "
    "faster way.",
)
_SHARD = flags.DEFINE_string(
    "shard",
    None,
    "INDEX/COUNT: do every COUNT-th training, starting with training INDEX, counted from 0.",
)


def sweep(config, workdir: str) -> None:
    """Reads the cells and runs the sweep."""
    shard = None if _SHARD.value is None else Shard.parse(_SHARD.value)
    cells, set_by_flags = run_flags.read_sweep()
    run_sweep(
        config, cells, workdir, together=_TOGETHER.value, shard=shard, set_by_flags=set_by_flags
    )


if __name__ == "__main__":
    _config, _workdir = run_flags.define_run_flags(config_required=True)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: sweep(_config.value, _workdir.value))
