"""Draws leak against knock-out: python -m launch.bridge --sweeps=DIR,DIR --out=DIR

Each of --sweeps is a work directory of launch.sweep --config configs/bridge.py:digits (or :glyphs);
one that is still running will do. Into --out go a table of each, bridge_digits.csv, and bridge.svg
and bridge.png. Correlations and the cells that leak most are printed.
"""

from pathlib import Path

from absl import flags

from pnoise_jax.studies import bridge, bridge_figure
from pnoise_jax.studies.reporting import style
from pnoise_jax.training import workdir as directories

from . import main

_SWEEPS = flags.DEFINE_list("sweeps", None, "Work directories of the sweeps.", required=True)
_OUT = flags.DEFINE_string("out", None, "Where tables and figure go: made.", required=True)


def draw(sweeps: list[str], out: Path) -> None:
    """Writes the tables and the figure, and prints what they show."""
    models = {}
    for workdir in sweeps:
        found = bridge.read_models(workdir)
        base = directories.read_config(Path(workdir), name="base_config.json")
        models[base.data.name] = found
    out.mkdir(parents=True, exist_ok=True)
    for name, found in models.items():
        bridge.write_models(out / f"bridge_{name.partition('/')[0]}.csv", found)
        print(bridge.describe(name, found))
    figure = bridge_figure.bridge_figure(models)
    (out / "bridge.svg").write_bytes(style.svg(figure))
    (out / "bridge.png").write_bytes(style.png(figure))


if __name__ == "__main__":
    main.run(lambda: draw(_SWEEPS.value, Path(_OUT.value).expanduser()))
