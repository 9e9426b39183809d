r"""Detects unseen classes by reconstruction errors: pnoise anomaly --workdir RUN

    pnoise anomaly --config denoising_digits:part=pretrain \
        --workdir /tmp/anomalies --held_out=each

RUN is a run of the denoising task with task.held_out_classes. Every image of its test split is
scored by its reconstruction error, and anomaly.json, anomaly.svg and anomaly.png are written to
RUN/anomaly: the ROC curve and the area under it, with an interval over test examples. They also
show a score that needs no model, the distance to the nearest training image. With other data or
settings, such as --config.data.name=…, also set --out: a report is replaced only by a report of the
same runs and settings.

With --config and --held_out, one run for each of these classes is trained or resumed, each in its
own directory in --workdir; --held_out=each holds out every class in turn.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from pnoise_jax import stopping

    stopping.listen()

import os
import sys
from pathlib import Path

from absl import flags

from pnoise_jax import parallel, writing
from pnoise_jax.studies import anomaly
from pnoise_jax.terminal import create_console, printable, say

from . import main, run_flags

_HELD_OUT = flags.DEFINE_list(
    "held_out", None, "Classes to hold out, one run for each; 'each' holds out every class in turn."
)
_OUT = flags.DEFINE_string("out", None, "Directory for the report; default: anomaly in --workdir.")


def run(config, workdir: str) -> None:
    """Trains missing runs, scores the images, and prints and writes the results."""
    if parallel.are_several():
        raise ValueError("--multi_host: anomalies are scored on one host; leave the flag out")
    if _OUT.value is None:
        out = Path(workdir).expanduser() / "anomaly"
        named = f"--workdir={workdir!r}: {out}"
    else:
        out, named = Path(_OUT.value).expanduser(), f"--out={_OUT.value!r}"
    if _HELD_OUT.value is None:
        anomaly.require_own(out, [(workdir, config)], named=named)
        detections = [anomaly.detect(workdir, config)]
    else:
        classes = None if _HELD_OUT.value == ["each"] else _HELD_OUT.value
        anomaly.require_own(out, anomaly.held_out_runs(config, workdir, classes), named=named)
        runs = list(anomaly.train_held_out(config, workdir, classes))
        detections = [anomaly.detect(*each) for each in runs]
    writing.make_directory(out, named=named)
    console = create_console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000)
    for table in anomaly.tables(detections):
        console.print(table)
    anomaly.write(out, detections)
    say(f"wrote anomaly.json, anomaly.svg and anomaly.png to {printable(str(out))}")


if __name__ == "__main__":
    _config, _workdir = run_flags.define_run_flags(config_required=False)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: run(_config.value, _workdir.value))
