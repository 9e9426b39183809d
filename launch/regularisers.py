r"""Compares regularisers: pnoise regularisers --config CONFIG --workdir DIR [--settings=NAME,NAME]

    pnoise regularisers --config regularisers --workdir /tmp/regularisers

Beside get_config() the config file has settings(), which returns the data sets by name; arms(),
the regularisers with the candidates of each; and contrasts(), the pairs of arms that are named
beforehand. In each setting every arm is tuned on held-out training examples, and the chosen
candidate is tested once, with other seeds.

DIR gets regularisers.json, .csv (a row for each test training), .md (the tables), .svg and .png, of
all settings that are finished, and study.json, which notes the comparison: another one in DIR is
refused. The same command resumes. Several processes may do different settings in one DIR: on a CPU,
one for each core takes the least time.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from absl import flags

from pnoise_jax.studies.regularisers import Seeds, compare_regularisers
from pnoise_jax.studies.sweep import WAYS

from . import main

_SETTINGS = flags.DEFINE_list("settings", None, "Of the config's settings(); default: all.")
_TUNING_SEEDS = flags.DEFINE_list("tuning_seeds", list(map(str, Seeds().tuning)), "To tune with.")
_TEST_SEEDS = flags.DEFINE_list("test_seeds", list(map(str, Seeds().test)), "To test with.")
_TOGETHER = flags.DEFINE_enum(
    "together", "never", WAYS, "Train the seeds together, with vmap; on a CPU this is slower."
)


def compare(config, workdir: str) -> None:
    """Reads the settings and arms, and runs the study."""
    settings, arms = (_read(name) for name in ("settings", "arms"))
    compare_regularisers(
        config,
        workdir,
        arms=arms,
        settings=settings,
        contrasts=main.call_config_function("contrasts") or [],
        names=_SETTINGS.value,
        seeds=Seeds(
            main.whole_numbers("tuning_seeds", _TUNING_SEEDS.value),
            main.whole_numbers("test_seeds", _TEST_SEEDS.value),
        ),
        together=_TOGETHER.value,
        command=main.command_line("regularisers"),
    )


def _read(name: str) -> dict:
    returned = main.call_config_function(name)
    if not isinstance(returned, dict) or not returned:
        raise ValueError(
            f"--config={main.config_file()}: {name}() returns {returned!r}: define it beside "
            "get_config(), to return a dict by name, as configs/regularisers.py does"
        )
    return returned


if __name__ == "__main__":
    _config, _workdir = main.define_run_flags(config_required=True)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: compare(_config.value, _workdir.value))
