"""Prints docs/config.md, the list of all fields: python -m pnoise_jax.training.config_page."""

from collections.abc import Iterator

from pnoise_jax import noise
from pnoise_jax.training.fields import FIELDS, Affects

_HEAD = """# All fields of a config

Written by `python -m pnoise_jax.training.config_page` from the declarations of the fields;
[configuration.md](configuration.md) says how to make a config and change it. The last column says
when a field may differ from what a run was started with: when the run is *resumed*, when the
*sweep* it belongs to is resumed, or between the *hosts* of one run.

"""
_MODEL = """
The other fields of the model section are the options of the model, and
`training.model_config("vit_ti_16")` shows them with their defaults. In the same way,
`training.task_config("classification")` shows the options of a task.
"""
_WORDS = {
    Affects.WEIGHTS: "never",
    Affects.RESULTS: "resumed",
    Affects.NOTHING: "resumed, sweep",
    Affects.HOST: "resumed, sweep, hosts",
}


def page() -> str:
    """The page, as Markdown."""
    return _HEAD + "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    section = None
    for name, field in FIELDS.items():
        if name.rpartition(".")[0] != section:
            section = name.rpartition(".")[0]
            yield f"\n## {section.capitalize() or 'The run'}\n"
            yield "| field | default | may be | meaning | may differ |"
            yield "| --- | --- | --- | --- | --- |"
        default = "not set" if field.default is None else f"`{field.default!r}`"
        cells = (f"`{name}`", default, field.expected, field.meaning, _WORDS[field.affects])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield _MODEL
    yield "## Noise\n"
    yield "None of these fields is set by default. A preset sets several; the others override it.\n"
    yield "| field | type | meaning |"
    yield "| --- | --- | --- |"
    for name, field in noise.CONFIG_FIELDS.items():
        yield f"| `noise.{name}` | {field.kind.__name__} | {field.meaning} |"


if __name__ == "__main__":
    print(page(), end="")
