r"""Shows what noise does to images and to the latent: pnoise show --config CONFIG --out DIR

    pnoise show --config digits_vit --out /tmp/show
    pnoise show --workdir /tmp/digits_vit --out /tmp/show --strengths=0.1,0.3,1

Shows the config's noise and every registered noise, at several strengths. These files are written
to DIR: images.svg and images.png, the noises on images of the config's test split; latent.svg and
latent.png for each site where the config's noise enters the model, with norms, cosines to the clean
representation, and singular values; and the numbers as show.csv and show.json. Files of an earlier
call are replaced. With --workdir the weights are a run's; otherwise they are the ones that the
config names, or initial ones, and the figures say which.

Noise that mixes a batch mixes the images shown; in the latent, it mixes evaluation.batch_size
images.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from pnoise_jax import parallel, writing
from pnoise_jax.studies import showing
from pnoise_jax.studies.reporting import style
from pnoise_jax.terminal import create_console, say

from . import main, run_flags

_LATENT = re.compile(r"latent(_image|_layer_[0-9]+(_attention_input)?(_patch)?)?\.(svg|png)")
_OUT = flags.DEFINE_string("out", None, "Directory for the figures; it is created.", required=True)
_STRENGTHS = flags.DEFINE_list("strengths", ["0.1", "0.3", "1"], "Strengths of every noise.")
_IMAGES = flags.DEFINE_integer("images", 8, "Number of images to draw.")
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Seed of the choice of images and of the noise.",
    lower_bound=0,
    upper_bound=2**32 - 1,
)


def run(config, workdir: str | None) -> None:
    """Checks the flags, draws the figures, and prints and writes the results."""
    if parallel.are_several():
        raise ValueError("--multi_host: figures are drawn on one host; leave the flag out")
    settings = _settings(_STRENGTHS.value)
    out = Path(_OUT.value).expanduser()
    with writing.removing_empty(out):
        _show(config, workdir, settings, out)


def _show(config, workdir: str | None, settings: showing.ShowSettings, out: Path) -> None:
    named = f"--out={_OUT.value!r}"
    writing.make_directory(out, named=named)
    writing.require_places(out, named=named, files=("show.csv", "show.json", "images.svg"))
    shown = showing.show(config, workdir, settings)
    figures = {"images": showing.image_figure(shown)}
    for site in shown.sites:
        name = "latent" if len(shown.sites) == 1 else f"latent_{site.site.name}"
        figures[name] = showing.latent_figure(shown, site)
    console = create_console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000)
    for table in showing.tables(shown):
        console.print(table)
    for sentence in showing.sentences(shown):
        say(sentence)
    for file in out.iterdir():  # left by an earlier call, for sites that are not shown now
        if _LATENT.fullmatch(file.name) and file.stem not in figures:
            file.unlink()
    for name, figure in figures.items():
        writing.replace_file(out / f"{name}.svg", style.svg(figure))
        writing.replace_file(out / f"{name}.png", style.png(figure))
    text = writing.csv_text(showing.COLUMNS, showing.rows(shown))
    writing.replace_file(out / "show.csv", text)
    content = json.dumps(showing.content(shown), indent=1, allow_nan=False)
    writing.replace_file(out / "show.json", content + "\n")
    say(f"wrote {', '.join(figures)} as SVG and PNG, show.csv and show.json to {out}")


def _settings(strengths: Sequence[str]) -> showing.ShowSettings:
    try:
        numbers = tuple(map(float, strengths))
    except ValueError:
        raise ValueError(
            f"--strengths={','.join(strengths)}: give numbers separated by commas"
        ) from None
    try:
        return showing.ShowSettings(numbers, _IMAGES.value, _SEED.value)
    except ValueError as error:
        raise ValueError(f"--{error}") from None


if __name__ == "__main__":
    _config, _workdir = run_flags.define_run_flags(config_required=False, workdir_required=False)
    flags.adopt_module_key_flags(main)  # for --help
    main.run(lambda: run(_config.value, _workdir.value))
