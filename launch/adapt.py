r"""Trains methods of domain adaptation: pnoise adapt --config CONFIG --workdir DIR

    pnoise adapt --config uda_digits --workdir /tmp/uda_digits
    pnoise adapt --config uda_office_home --workdir /tmp/office_home \
        --pairs=Ar-Cl,Cl-Ar --methods=tvt --config.weights=B_16.npz

For each method and seed, with and without the config's noise, a work directory is created in
DIR/runs, which pnoise audit and pnoise evaluate accept. The results are written to DIR:
adaptation.json and .csv, with a row for each run and protocol (clean, noisy_shuffled, noisy_listed:
the target's stored order), and adaptation.html, with the table and its explanation. Source only and
the upper bound, trained on target labels, are always trained. The same command resumes a stopped
study.

The config file's get_config() names the source in its task section and the target in its data
section. The file can also define methods(), which returns the fields that some methods change, such
as {"tvt": {"task.patch_weight": 0.01}}; and pairs(), which returns the fields that each ordered
pair of domains changes. Each pair then has its own directory in DIR, and pairs.csv and pairs.html
in DIR cover all pairs.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from absl import flags

from pnoise_jax.studies.adaptation import METRICS, run_adaptation, run_pairs

from . import main, run_flags

_METHODS = flags.DEFINE_list("methods", None, "Methods, such as dann,tvt; default: all.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the runs; intervals need three.")
_PAIRS = flags.DEFINE_list(
    "pairs", None, "Pairs from the config's pairs(), such as Ar-Cl; default: all."
)
_METRIC = flags.DEFINE_enum(
    "metric", None, METRICS, "Metric of the tables; default: the data set's official one."
)


def adapt(config, workdir: str) -> None:
    """Reads the methods and pairs, and runs the study."""
    overrides, pairs = (_read(name) for name in ("methods", "pairs"))
    run_flags.tell_overridden("methods()", overrides or {})
    run_flags.tell_overridden("pairs()", pairs or {})
    options = {
        "methods": _METHODS.value,
        "seeds": main.whole_numbers("seeds", _SEEDS.value),
        "overrides": overrides or {},
        "metric": _METRIC.value,
        "command": main.command_line("adapt"),
    }
    if pairs is not None:
        run_pairs(config, workdir, pairs, names=_PAIRS.value, **options)
    elif _PAIRS.value is not None:
        raise ValueError(
            f"--pairs={','.join(_PAIRS.value)}: --config={run_flags.config_file()} has no pairs(): "
            "leave the flag out, or define pairs() to return the fields of each pair"
        )
    else:
        run_adaptation(config, workdir, **options)


def _read(name: str) -> dict | None:
    """The dict of dicts that a function of the config file returns.

    Raises:
      ValueError: it returns something else.
    """
    returned = run_flags.call_config_function(name)
    if returned is None:
        return None
    if not isinstance(returned, dict) or not all(isinstance(x, dict) for x in returned.values()):
        raise ValueError(
            f"--config={run_flags.config_file()}: {name}() returns {returned!r}: make it return a "
            "dict of dicts of dotted fields, such as {'tvt': {'task.patch_weight': 0.01}}"
        )
    return returned


if __name__ == "__main__":
    _config, _workdir = run_flags.define_run_flags(config_required=True)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: adapt(_config.value, _workdir.value))
