"""What the benchmarks print and write."""

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import rich.table
from rich.console import Console

from pnoise_jax import writing
from pnoise_jax.terminal import printable


def environment() -> dict[str, Any]:
    """Where and when it was measured; taken before, so that the load is that of other programs."""
    packages = ("jax", "jaxlib", "flax", "numpy")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def print_environment(console: Console, where: dict[str, Any]) -> None:
    """One line on the machine, and a warning where other programs use it."""
    load, cpus = where["load_average"], where["cpu_count"]
    console.print(f"jax {where['versions']['jax']}, {cpus} CPU cores, load average {load}")
    if load is not None and load > cpus / 2:
        console.print("other programs are running: expect a wide spread", style="yellow")


def table(title: str, columns: list[str], rows: list[list[str]]) -> rich.table.Table:
    """A table of figures, which stand to the right."""
    built = rich.table.Table(title=title, title_justify="left")
    for column in columns:
        built.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        built.add_row(*row)
    return built


def figure(value: float, *, decimals: int = 2) -> str:
    """4.12, 14.9, 105; ``decimals`` are those of values below 10."""
    return f"{value:.{decimals if value < 10 else 1 if value < 100 else 0}f}"


def ratio(compared: dict[str, Any], *, decimals: int = 2) -> str:
    """The median and the quartiles of the ratios, such as "4.12 (3.90-4.41)"."""
    spread = compared["ratio"]
    names = ("median", "lower_quartile", "upper_quartile")
    median, low, high = (figure(spread[name], decimals=decimals) for name in names)
    return f"{median} ({low}-{high})"


def write(file: str | None, console: Console, content: dict[str, Any]) -> None:
    """Writes JSON to a new file, where one is named; prints it where that fails.

    Raises:
      OSError: the file is there by now, or cannot be written.
    """
    if file is None:
        return
    path = Path(file).expanduser().absolute()
    text = json.dumps(content, indent=2) + "\n"
    try:
        writing.create_file(path, text)
    except OSError as error:
        console.print(text, soft_wrap=True)
        raise OSError(
            f"--out={file} cannot be written ({error.strerror or error}): its content is printed "
            "above instead"
        ) from error
    console.print(f"wrote {printable(str(path))}", soft_wrap=True)
