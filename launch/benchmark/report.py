"""Code that the benchmarks share around a measurement: checks of flags, tables, the JSON file."""

import dataclasses
import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import rich.table
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import noise, writing
from pnoise_jax.registry import did_you_mean
from pnoise_jax.terminal import create_console, printable

from . import measuring

_Spec = TypeVar("_Spec")
_WIDE = 1000  # columns if the output is a file or a pipe, so that no line is cut


def run(
    benchmark: str,
    specs: Sequence[Any],
    measure: Callable[[Any, Mesh], list[dict]],
    show: Callable[[Console, Any, list[dict]], None],
    *,
    devices: Sequence[int] = (1,),
    out: str | None,
) -> None:
    """Measures each spec on each number of devices, and prints and writes the results.

    Args:
      benchmark: the name of the benchmark.
      specs: what to measure: dataclasses of checked flags; more than one if a flag lists things
        that are measured one after another.
      measure: measures a spec on a mesh; see `measuring.measure_on`.
      show: prints the results of a spec on one number of devices.
      devices: the numbers of devices.
      out: the JSON file; None to write none.
    """
    console, where = start(out)
    results = []
    for spec, count in itertools.product(specs, devices):
        measured = measuring.measure_on(count, measure, spec)
        results += measured
        if "skipped" in measured[0]:
            console.print(f"--devices={count} skipped: {measured[0]['skipped']}", style="yellow")
        else:
            show(console, spec, measured)
    content = {"benchmark": benchmark, **where, "specs": list(map(dataclasses.asdict, specs))}
    write(out, console, content | {"results": results})


def spec_of(kind: type[_Spec], **checked: Any) -> _Spec:
    """Creates a dataclass of flags: a field is in ``checked``, or else the flag of its name."""
    names = [field.name for field in dataclasses.fields(cast("Any", kind))]
    return kind(**{n: checked[n] if n in checked else flags.FLAGS[n].value for n in names})


def start(out: str | None) -> tuple[Console, dict[str, Any]]:
    """Returns a console, and where and when the measurement takes place.

    The load average is read before anything is measured, so it is due to other programs.

    Raises:
      OSError: the file of --out exists or cannot be written.
    """
    _require_writable(out)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    where = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {n: importlib.metadata.version(n) for n in ("jax", "jaxlib", "flax", "numpy")},
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "load_average": load,
    }
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE
    console = create_console(width=width)
    cpus = where["cpu_count"]
    console.print(f"jax {where['versions']['jax']}, {cpus} CPU cores, load average {load}")
    if load is not None and load > cpus / 2:
        console.print("other programs are running, so expect a wide spread", style="yellow")
    return console, where


def table(title: str, columns: list[str], rows: list[list[str]]) -> rich.table.Table:
    """A table of figures, right-aligned."""
    built = rich.table.Table(title=title, title_justify="left")
    for column in columns:
        built.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        built.add_row(*row)
    return built


def say_agreement(console: Console, what: str, results: Iterable[dict[str, Any]]) -> None:
    """Prints the results that were compared before timing, and the largest difference."""
    largest = max((d for result in results for d in result["difference"].values()), default=None)
    if largest is not None:
        console.print(f"before timing, {what} agreed; largest difference {largest:.2g}\n")


def figure(value: float, *, decimals: int = 2) -> str:
    """A number such as 4.12, 14.9 or 105, with ``decimals`` decimals below 10."""
    return f"{value:.{decimals if value < 10 else 1 if value < 100 else 0}f}"


def milliseconds(compared: dict[str, Any]) -> str:
    """The median time of a call."""
    return figure(1000 * compared["seconds"]["median"])


def ratio(compared: dict[str, Any], *, decimals: int = 2) -> str:
    """The median and the quartiles of the ratios, such as "4.12 (3.90-4.41)"."""
    spread = compared["ratio"]
    names = ("median", "lower_quartile", "upper_quartile")
    median, low, high = (figure(spread[name], decimals=decimals) for name in names)
    return f"{median} ({low}-{high})"


def write(file: str | None, console: Console, content: dict[str, Any]) -> None:
    """Writes JSON to a new file, if one is named; prints it if that fails.

    Raises:
      OSError: the file exists meanwhile, or cannot be written.
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
            "above"
        ) from error
    console.print(f"wrote {printable(str(path))}", soft_wrap=True)


def _require_writable(file: str | None) -> None:
    if file is None:
        return
    path = Path(file).expanduser().absolute()
    if path.is_dir() or not file.strip():
        raise IsADirectoryError(f"--out={file} is a directory: name a file in it")
    if os.path.lexists(path):
        raise FileExistsError(
            f"--out={file} exists, and timings are never overwritten: name another file, or "
            "remove it"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out={file}: {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--out={file} cannot be written; choose another place")


def require_known(flag: str, value: str, known: Iterable[str]) -> None:
    """Raises ValueError, with similar names, unless the value is known."""
    known = list(known)
    if value not in known:
        raise ValueError(f"--{flag}={value} is unknown{did_you_mean(value, known)}")


def require_some(flag: str, values: Sequence[str], known: Iterable[str]) -> None:
    """Raises ValueError if a flag's list is empty."""
    if not values:
        raise ValueError(f"--{flag} is empty: use some of {', '.join(known)}")


def require_preset(value: str) -> None:
    """Raises ValueError, with similar names, unless --preset is one of `noise.PRESETS`."""
    if value in noise.RETIRED_PRESETS:
        raise ValueError(f"--preset={value}: {noise.RETIRED_PRESETS[value].reason}")
    require_known("preset", value, noise.PRESETS)


def require_multiple(flag: str, size: int, unit: int) -> None:
    """Raises ValueError unless a size is a multiple of ``unit``."""
    if size % unit:
        nearest = max(unit, round(size / unit) * unit)
        raise ValueError(f"--{flag}={size} is not a multiple of {unit}: use one, such as {nearest}")


def require_divisible(flag: str, sizes: Iterable[int], devices: Iterable[int]) -> None:
    """Raises ValueError unless every size splits evenly over every number of devices."""
    sizes = list(sizes)
    for count in devices:
        for size in sizes:
            if size % count:
                nearest = max(count, round(size / count) * count)
                raise ValueError(
                    f"--{flag}={size} is not divisible by --devices={count}: use a multiple of "
                    f"{count}, such as {nearest}, or fewer devices"
                )
