"""Where does the accuracy come from? pnoise audit --config CONFIG --workdir DIR [--flags]

Evaluates trained runs with and without noise, on the test set in class order and in 40 random
orders, in batches of several sizes, and exchanges the batch mates of examples. The verdict says
whether the noise raises accuracy honestly, reads the labels of batch mates, or neither. It writes
the report DIR/audit/audit.html, and next to it audit.json, audit.csv, the figures as SVG and PNG,
and predictions.npz with the prediction for every example. Another audit of these runs is written to
DIR/audits; an --out directory that contains another audit is refused.

    pnoise audit --config digits_vit --workdir /tmp/digits --seeds=0,1,2,3,4

The run of seed s is in DIR, or in DIR/seed_s; missing runs are trained. If the runs exist, --config
can be left out; its noise, evaluation and data sections may differ from the runs'. To audit more
noises: --presets=paper_vit,optimal_published, and --strengths=0.1,0.2,0.3 for each of them.

With --config.weights=FILE, no run in DIR and no --seeds, these weights are audited directly:
nothing is trained, and only the test split is needed.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from typing import Any, cast

from absl import flags

from pnoise_jax import evaluation, studies

from . import main, run_flags

_SEEDS = flags.DEFINE_list(
    "seeds", None, "Seeds of the runs; default: those in --workdir, else one."
)
_PRESETS = flags.DEFINE_list("presets", [], "Noises to audit in addition to the config's.")
_STRENGTHS = flags.DEFINE_list(
    "strengths", [], "Strengths to audit each noise at; default: the noise's own strength."
)
_BATCH_SIZES = flags.DEFINE_list(
    "batch_sizes",
    None,
    "Batch sizes; the verdict on a noise is about the size at which it is most serious. Default: "
    "those of 10, 50 and 100 that the classes allow.",
)
_MIXED = flags.DEFINE_bool(
    "mixed_batches", False, "Allow class-sorted batches that are larger than any class."
)
_PURITY = flags.DEFINE_integer("purity_steps", 6, "Steps of the purity sweep; 0 skips it.")
_CONFIDENCE = flags.DEFINE_float("confidence", 0.95, "Confidence of the intervals.")
_INTERVAL = flags.DEFINE_enum(
    "interval",
    "auto",
    ["auto", "seeds", "batches"],
    "What confidence intervals are over: seeds (2 or more), or batches.",
)
_ORDERS = flags.DEFINE_integer("orders", 40, "Number of random orders to score.")
_EQUIVALENCE = flags.DEFINE_float(
    "equivalence", 1.0, "Points of top-1; an effect shown to be smaller counts as no effect."
)
_METRIC = flags.DEFINE_string(
    "metric",
    None,
    "Metric to score in addition to accuracy: mean_per_class, macro_f1, published_meter or "
    "module:function.",
)
_RESAMPLES = flags.DEFINE_integer(
    "resamples", 2000, "Resamples of the interventions' permutation tests."
)
_OUT = flags.DEFINE_string("out", None, "Directory for the report; default: audit in --workdir.")


def audit(config, workdir: str) -> studies.Audit:
    """Checks the flags and runs the audit."""
    settings = studies.AuditSettings(
        batch_sizes=_numbers("batch_sizes", _BATCH_SIZES.value, int),
        orders=_ORDERS.value,
        equivalence=_EQUIVALENCE.value,
        purity_steps=_PURITY.value,
        confidence=_CONFIDENCE.value,
        resamples=_RESAMPLES.value,
        seed=config.evaluation.seed,
        interval=cast("Any", _INTERVAL.value),
        mixed_batches=_MIXED.value,
    )
    return studies.audit_runs(
        config,
        workdir,
        seeds=_numbers("seeds", _SEEDS.value, int),
        presets=_PRESETS.value,
        strengths=_numbers("strengths", _STRENGTHS.value, float) or (),
        settings=settings,
        metric=None if _METRIC.value is None else evaluation.metric_named(_METRIC.value),
        out=_OUT.value,
        command=main.command_line("audit"),
    )


def _numbers(flag: str, values: list[str] | None, kind: type) -> tuple | None:
    if values is None:
        return None
    try:
        return tuple(kind(value) for value in values)
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"--{flag}={','.join(values)}: give {what} separated by commas") from None


if __name__ == "__main__":
    _config, _workdir = run_flags.define_run_flags(
        config_required=False, read_config=studies.read_run_config
    )
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: audit(_config.value, _workdir.value))
