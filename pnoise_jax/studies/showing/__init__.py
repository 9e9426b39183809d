"""Shows what noises do to images and to their representations, in figures and numbers."""

from pnoise_jax.studies.showing.image_figure import image_figure
from pnoise_jax.studies.showing.latent_figure import latent_figure
from pnoise_jax.studies.showing.report import COLUMNS, content, rows, sentences, tables
from pnoise_jax.studies.showing.study import Shown, ShownSite, ShowSettings, show

__all__ = [
    "COLUMNS",
    "ShowSettings",
    "Shown",
    "ShownSite",
    "content",
    "image_figure",
    "latent_figure",
    "rows",
    "sentences",
    "show",
    "tables",
]
