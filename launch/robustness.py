r"""Measures accuracy against the strength of noise and attacks: pnoise robustness --workdir DIR

    pnoise robustness --config robustness_digits --workdir /tmp/robustness
    pnoise robustness --workdir /tmp/digits_vit --out /tmp/curves --pgd=0.01,0.02,0.04

The first command trains a model for each seed and each arm of the config file's arms(), which
returns the fields that each arm changes: {"plain": {}, "fgsm": {"task.attack": "fgsm"}}. The file
can define strengths(), which returns how strongly test images are perturbed. The same command
resumes a stopped study. The second command, without --config, measures an existing run. Both write
robustness.json, .csv, .svg and .png: accuracy under Gaussian noise, salt-and-pepper, FGSM and PGD,
with intervals, and every sign that an attack failed. Strengths are for pixels from 0 to 1.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from absl import flags

from pnoise_jax.studies.robustness import SEEDS, CurveSettings, run_curves, run_curves_of

from . import main, run_flags

_OUT = flags.DEFINE_string("out", None, "Directory of the report on an existing run.")
_SEEDS = flags.DEFINE_list(
    "seeds", list(map(str, SEEDS)), "Seeds of the runs; intervals need three."
)
_PGD_STEPS = flags.DEFINE_integer("pgd_steps", 20, "Steps of PGD at test time.")
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the noise on test images.", lower_bound=0, upper_bound=2**32 - 1
)
_STRENGTHS = {
    kind: flags.DEFINE_list(kind, None, f"{what} at test time, ascending, such as {example}.")
    for kind, what, example in (
        ("gaussian", "Standard deviations", "0.1,0.2"),
        ("salt_and_pepper", "Probabilities", "0.05,0.1"),
        ("fgsm", "Epsilons of FGSM", "0.02,0.04"),
        ("pgd", "Epsilons of PGD", "0.02,0.04"),
    )
}


def measure(config, workdir: str | None) -> None:
    """Reads the flags, and runs the study or measures the run."""
    if workdir is None:
        raise ValueError(
            "--workdir is not set: give the directory of a study or of a run to measure"
        )
    is_study = flags.FLAGS["config"].using_default_value is False
    settings = _settings(is_study)
    command = main.command_line("robustness")
    if not is_study:
        if _OUT.value is None:
            raise ValueError(
                f"--out is not set: give a directory for the report on --workdir={workdir!r}; or "
                "set --config to train and measure its arms() there"
            )
        if flags.FLAGS["seeds"].present:
            raise ValueError(
                f"--seeds={','.join(_SEEDS.value)}: a run keeps the seed of its training; leave "
                "--seeds out, or set --config to train and measure its arms()"
            )
        run_curves_of(workdir, config, _OUT.value, settings=settings, command=command)
        return
    if _OUT.value is not None:
        raise ValueError(
            f"--out={_OUT.value!r}: a study writes to --workdir; leave --out out, or leave "
            "--config out to measure the run in --workdir"
        )
    arms = run_flags.call_config_function("arms")
    if not isinstance(arms, dict) or not all(isinstance(each, dict) for each in arms.values()):
        raise ValueError(
            f"--config={run_flags.config_file()}: arms() returns {arms!r}: define it next to "
            "get_config() to return a dict of dicts of dotted fields, such as {'plain': {}, "
            "'fgsm': {'task.attack': 'fgsm'}}"
        )
    run_flags.tell_overridden("arms()", arms)
    seeds = main.whole_numbers("seeds", _SEEDS.value)
    run_curves(config, workdir, arms, seeds=seeds, settings=settings, command=command)


def _settings(is_study: bool) -> CurveSettings:
    strengths = (run_flags.call_config_function("strengths") if is_study else None) or {}
    if not isinstance(strengths, dict):
        raise ValueError(
            f"--config={run_flags.config_file()}: strengths() returns {strengths!r}: make it "
            "return a dict, such as {'pgd': (0.02, 0.04)}"
        )
    typed = {kind: _numbers(kind, f.value) for kind, f in _STRENGTHS.items() if f.value is not None}
    return CurveSettings({**strengths, **typed}, _PGD_STEPS.value, _SEED.value)


def _numbers(kind: str, values: list[str]) -> tuple[float, ...]:
    try:
        return tuple(map(float, values))
    except ValueError:
        raise ValueError(f"--{kind}={','.join(values)}: give numbers separated by commas") from None


if __name__ == "__main__":
    _config, _workdir = run_flags.define_run_flags(config_required=False, workdir_required=False)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: measure(_config.value, _workdir.value))
