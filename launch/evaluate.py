r"""Evaluates a run: pnoise evaluate --workdir DIR [--config.noise.preset=…]

The config is the run's, or a file given with --config; its noise, evaluation and data sections may
differ from the run's. DIR/evaluation.json contains the finished run, measured with its settings;
other measurements, and those of a run that is not finished, are separate files in DIR/evaluations.

With --sets, the run, or the weights that --config.weights names, are evaluated on several test sets
with ImageNet's classes, and a table compares them; mCE is printed if ImageNet-C is among them:

    pnoise evaluate --config CONFIG --config.weights=FILE --data_dir DATA --workdir DIR \
        --sets=imagenet2012,imagenet2012_real,imagenet_v2/matched-frequency,imagenet_sketch
    pnoise evaluate … --sets=imagenet_a,imagenet_r --config.evaluation.classes=of_data_set
    pnoise evaluate … --sets=imagenet2012_corrupted

Existing measurements are not repeated, so the same command resumes a stopped evaluation.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

from absl import flags

from pnoise_jax import training

from . import main, run_flags

_OUT = flags.DEFINE_string("out", None, "Directory for the report; default: --workdir.")
_SETS = flags.DEFINE_list(
    "sets",
    None,
    "Test sets to compare in a table: imagenet2012, imagenet2012_real, imagenet_v2/VARIANT, "
    "imagenet_a, imagenet_r, imagenet_sketch, imagenet2012_corrupted (all 75), or one of these 75.",
)


def evaluate(config, workdir: str) -> None:
    """Evaluates the run on its test split, or on the test sets of --sets."""
    if _SETS.value is None:
        training.evaluate(config, workdir, out=_OUT.value)
    else:
        training.evaluate_sets(config, workdir, _SETS.value, out=_OUT.value)


if __name__ == "__main__":
    _config, _workdir = run_flags.define_run_flags(config_required=False, workdir_may_be_url=True)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: evaluate(_config.value, _workdir.value))
