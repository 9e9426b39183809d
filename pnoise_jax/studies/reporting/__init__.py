"""Reports of studies: files, pages, figures, and tables on the console."""

from pnoise_jax.studies.reporting import style

__all__ = ["style"]
