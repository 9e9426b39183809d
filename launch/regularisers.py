r"""Compares regularisers: pnoise regularisers --config CONFIG --workdir DIR [--settings=NAME,NAME]

    pnoise regularisers --config regularisers --workdir /tmp/regularisers

In addition to get_config() the config file defines settings(), which returns the data sets by name;
arms(), the regularisers and their candidates; and contrasts(), the pairs of arms chosen beforehand.
In each setting every arm is tuned on held-out training examples, and the chosen candidate is tested
once, with other seeds.

For all finished settings, regularisers.json, .csv (a row for each test training), .md (the tables),
.svg and .png are written to DIR. study.json records the comparison: another comparison in the same
DIR is refused. The same command resumes. Several processes can run different settings in one DIR:
on a CPU, one process per core takes the least time.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from absl import flags

from pnoise_jax.studies.regularisers import Arm, Seeds, Setting, compare_regularisers
from pnoise_jax.studies.sweep import WAYS

from . import main, run_flags

_SETTINGS = flags.DEFINE_list("settings", None, "Names from the config's settings(); default: all.")
_TUNING_SEEDS = flags.DEFINE_list(
    "tuning_seeds", list(map(str, Seeds().tuning)), "Seeds to tune with."
)
_TEST_SEEDS = flags.DEFINE_list("test_seeds", list(map(str, Seeds().test)), "Seeds to test with.")
_TOGETHER = flags.DEFINE_enum(
    "together", "never", WAYS, "Train all seeds in one program, with vmap; slower on a CPU."
)


def compare(config, workdir: str) -> None:
    """Reads the settings and arms, and runs the study."""
    settings, arms = (_read(name) for name in ("settings", "arms"))
    _tell_overridden(settings, arms)
    compare_regularisers(
        config,
        workdir,
        arms=arms,
        settings=settings,
        contrasts=run_flags.call_config_function("contrasts") or [],
        names=_SETTINGS.value,
        seeds=Seeds(
            main.whole_numbers("tuning_seeds", _TUNING_SEEDS.value),
            main.whole_numbers("test_seeds", _TEST_SEEDS.value),
        ),
        together=_TOGETHER.value,
        command=main.command_line("regularisers"),
    )


def _tell_overridden(settings: dict, arms: dict) -> None:
    """Says where settings or arms set the same field as a flag; invalid ones are named later."""
    fields = {
        name: {**each.splits(tuning=False), **each.fields}
        for name, each in settings.items()
        if isinstance(each, Setting) and isinstance(each.fields, dict)
    }
    candidates = {
        name: {field: True for fields in each.candidates for field in fields}
        for name, each in arms.items()
        if isinstance(each, Arm)
        and isinstance(each.candidates, list | tuple)
        and all(isinstance(fields, dict) for fields in each.candidates)
    }
    seeds = "--tuning_seeds and --test_seeds"
    run_flags.tell_overridden("settings()", fields, seeds=seeds)
    run_flags.tell_overridden("arms()", candidates, seeds=seeds)


def _read(name: str) -> dict:
    returned = run_flags.call_config_function(name)
    if not isinstance(returned, dict) or not returned:
        raise ValueError(
            f"--config={run_flags.config_file()}: {name}() returns {returned!r}: define it next to "
            "get_config() to return a dict by name, like configs/regularisers.py"
        )
    return returned


if __name__ == "__main__":
    _config, _workdir = run_flags.define_run_flags(config_required=True)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: compare(_config.value, _workdir.value))
