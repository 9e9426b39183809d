"""Plots leak against knock-out: pnoise bridge --sweeps=DIR,DIR --out=DIR

Each of --sweeps is a work directory of pnoise sweep --config bridge:digits (or bridge:glyphs),
which may still be running. A table for each, such as bridge_digits.csv, bridge.svg and bridge.png
are written to --out. Correlations and the cells that leak most are printed. Existing files from the
same sweeps, or from fewer of their cells, are replaced; files from other sweeps are not.
"""

from collections.abc import Iterable
from pathlib import Path

from absl import flags

from pnoise_jax import writing
from pnoise_jax.studies import bridge, bridge_figure
from pnoise_jax.studies.reporting import style
from pnoise_jax.terminal import say
from pnoise_jax.training import read_config

from . import main

_SWEEPS = flags.DEFINE_list("sweeps", None, "Work directories of the sweeps.", required=True)
_OUT = flags.DEFINE_string(
    "out", None, "Directory for tables and figures; it is created.", required=True
)


def draw(sweeps: list[str], out: Path) -> None:
    """Writes the tables and the figure, and prints what they show."""
    models = {}
    if not sweeps:
        raise ValueError("--sweeps=: give the work directory of one sweep or more")
    for workdir in sweeps:
        with main.naming(f"--sweeps={','.join(sweeps)}"):
            trained = bridge.read_models(workdir)
            base = read_config(Path(workdir), name="base_config.json")
        if base.data.name in models:
            raise ValueError(
                f"--sweeps={','.join(sweeps)}: two of them have data.name={base.data.name!r}; "
                "give one sweep per data set"
            )
        models[base.data.name] = trained
    for name, trained in models.items():
        say(bridge.describe(name, trained))
    tables = {f"bridge_{_short(name, models)}.csv": trained for name, trained in models.items()}
    texts = {name: bridge.models_text(trained) for name, trained in tables.items()}
    _claim(out, texts)
    for name, text in texts.items():
        writing.replace_file(out / name, text)
    figure = bridge_figure.bridge_figure(models)
    writing.replace_file(out / "bridge.svg", style.svg(figure))
    writing.replace_file(out / "bridge.png", style.png(figure))


def _short(name: str, names: Iterable[str]) -> str:
    """A data set's name, without its variant if the name alone distinguishes it."""
    short = name.partition("/")[0]
    is_unique = sum(other.partition("/")[0] == short for other in names) == 1
    return writing.file_name(short if is_unique else name)


def _claim(out: Path, tables: dict[str, str]) -> None:
    """Creates the directory, or checks that its files are of these models or fewer of them."""
    named = f"--out={str(out)!r}"
    writing.make_directory(out, named=named)
    writing.require_places(out, named=named, files=[*tables, "bridge.svg", "bridge.png"])
    there = {file.name for file in out.glob("bridge_*.csv")}
    others = [
        name
        for name in sorted(there)
        if not {*(out / name).read_text().splitlines()} <= {*tables.get(name, "").splitlines()}
    ]
    if not there:
        others = [name for name in ("bridge.svg", "bridge.png") if (out / name).exists()]
    if others:
        raise FileExistsError(
            f"{named} contains files from other sweeps ({', '.join(others)}): choose another "
            "directory, or move these files away"
        )


if __name__ == "__main__":
    main.run(lambda: draw(_SWEEPS.value, Path(_OUT.value).expanduser()))
