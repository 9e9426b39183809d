"""Texts for the figures and the table."""

from pnoise_jax.studies.showing.measuring import NoisyImages
from pnoise_jax.studies.showing.shown_noises import ShownNoise

_DOES = {
    "gaussian": "adds strength × N(0, 1)",
    "salt_and_pepper": "the strength is the share of numbers that are replaced",
    "erase": "takes away the strength’s share; a control",
    "cyclic_shift": "each image and the one before it",
    "reverse": "each image and its mirror in the batch",
    "optimal": "each image and the mean of the batch",
}


def note_on(noisy: NoisyImages) -> str:
    """Describes what a noise does, how many images it mixes, and where the config uses it."""
    parts = [_DOES.get(noisy.shown.name, ""), _mixing(noisy), in_config(noisy.shown)]
    return " · ".join(filter(None, parts))


def _mixing(noisy: NoisyImages) -> str:
    return "" if noisy.k is None else f"k = {noisy.k}"


def in_config(shown: ShownNoise) -> str:
    """Lists the sections of the config that have this noise, with its strength there."""
    pairs = zip(shown.sections, shown.strengths, strict=True)
    return "; ".join(f"config.{section}, strength {strength:g}" for section, strength in pairs)


def shorten(text: str, letters: int) -> str:
    """Cuts a text to at most ``letters`` characters; an ellipsis marks the cut."""
    return text if len(text) <= letters else text[: max(1, letters - 1)].rstrip() + "…"
