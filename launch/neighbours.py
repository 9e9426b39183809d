r"""How much does a test set's order reveal about labels? pnoise neighbours [--flags]

For each batch size: the share of batches that contain a single class, and the mean share of an
image's batch mates that are of its class, also in random order. Both are counted from labels alone,
without a model: noise that mixes the batch can read no more than this.

    pnoise neighbours
    pnoise neighbours --lists=Art.txt,Clipart.txt
    pnoise neighbours --splits=office_home:art,visda2017:validation --data_dir=DIR

The validation sets of VisDA-2017 and ImageNet, and ImageNet-V2, are always shown, because their
counts are public. Office-Home and DomainNet need the published lists (--lists) or the data prepared
from them (--splits, in stored order).
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
from absl import flags
from rich.table import Table

from pnoise_jax import data, writing
from pnoise_jax.studies.adaptation import (
    BATCH_SIZES,
    Neighbours,
    known_orders,
    neighbours,
    read_list,
)
from pnoise_jax.terminal import create_console

from . import main

_LISTS = flags.DEFINE_list("lists", [], "Published list files; each line is a path and a label.")
_SPLITS = flags.DEFINE_list("splits", [], "Prepared data, NAME:SPLIT, in stored order.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Directory of the data sets.")
_SIZES = flags.DEFINE_list(
    "batch_sizes", [str(size) for size in BATCH_SIZES], "Batch sizes in the table."
)
_OUT = flags.DEFINE_string("out", None, "JSON file for all numbers.")


def run() -> None:
    """Counts the batch mates, and prints and writes the results."""
    sizes = main.whole_numbers("batch_sizes", _SIZES.value, minimum=1)
    out = None if _OUT.value is None else Path(_OUT.value).expanduser()
    if out is not None:
        writing.require_file_place(out, named=f"--out={_OUT.value!r}")
    orders = known_orders()
    for file in _LISTS.value:
        with main.naming(f"--lists={','.join(_LISTS.value)}"):
            orders[file] = read_list(file)
    for text in _SPLITS.value:
        orders[text] = _stored_labels(text)
    rows = [neighbours(x, name=name, batch_sizes=sizes) for name, x in orders.items()]
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000
    create_console(width=width).print(_table(rows, sizes))
    if out is not None:
        content = [dataclasses.asdict(row) for row in rows]
        writing.replace_file(out, json.dumps(content, indent=1) + "\n")


def _stored_labels(text: str) -> np.ndarray:
    name, colon, split = text.rpartition(":")
    if not colon:
        raise ValueError(f"--splits={text}: give NAME:SPLIT, such as office_home:art")
    return np.asarray(data.load(name, split=split, data_dir=_DATA_DIR.value).labels)


def _table(rows: list[Neighbours], sizes: tuple[int, ...]) -> Table:
    title = "one-class batches / mates of the same class, in percent"
    table = Table(title=title, title_justify="left")
    table.add_column("order")
    for head in ("images", *(f"batches of {size}" for size in sizes), "next one", "shuffled"):
        table.add_column(head, justify="right")
    for row in rows:
        cells = [f"{_percent(row.pure[size])} / {_percent(row.same[size])}" for size in sizes]
        ends = (_percent(row.following), _percent(row.shuffled))
        table.add_row(row.name, str(row.n), *cells, *ends)
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


if __name__ == "__main__":
    flags.adopt_module_key_flags(main)  # for --help
    main.run(run)
