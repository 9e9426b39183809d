"""The files of a comparison of regularisers: JSON, CSV, Markdown, and a figure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnoise_jax.studies.regularisers.plan import NOTHING
from pnoise_jax.studies.reporting import style
from pnoise_jax.studies.sweep.cells import as_text, short
from pnoise_jax.writing import csv_text, replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STEM = "regularisers"
FILES = tuple(f"{_STEM}.{kind}" for kind in ("json", "csv", "md", "svg", "png"))
_COLUMNS = ("setting", "arm", "seed", "top1", "top1_views")
_BAR = r"\|"  # in a cell of a table
_FLOOR_LINES = {"1-NN": ":", "SVM": "--"}


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes all `FILES` to a directory."""
    figure = draw(content)
    contents = (
        json.dumps(content, indent=1) + "\n",
        csv_text(_COLUMNS, _rows(content)),
        markdown(content),
        style.svg(figure),
        style.png(figure),
    )
    for name, text in zip(FILES, contents, strict=True):
        replace_file(path / name, text)


def _rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns one row for each run of the test stage."""
    return [
        {
            "setting": name,
            "arm": arm_name,
            "seed": seed,
            "top1": arm["top1"][i],
            "top1_views": arm["top1_views"][i] if "top1_views" in arm else None,
        }
        for name, setting in content["settings"].items()
        for arm_name, arm in setting["arms"].items()
        for i, seed in enumerate(setting["test"]["seeds"])
    ]


def markdown(content: Mapping[str, Any]) -> str:
    """Formats the tables as Markdown: the contrasts, then all arms of each setting."""
    lines = _contrasts(content["contrasts"], content["corrected_over"])
    none = {name: each["arms"][NOTHING]["fields"] for name, each in content["settings"].items()}
    for name, setting in content["settings"].items():
        lines += ["", _describe(name, setting), ""]
        lines += ["| arm | top-1 | − none | − the arm without noise | with views | chosen |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [_line(each, arm, none[name]) for each, arm in setting["arms"].items()]
        lines += [_floor_line(kind, floor) for kind, floor in setting["floors"].items()]
    return "\n".join(lines) + "\n"


def _contrasts(contrasts: Sequence[Mapping[str, Any]], size: int) -> list[str]:
    """Returns the table of contrasts, with the number of contrasts they are corrected over."""
    if not size:
        return ["No contrasts were chosen beforehand."]
    count = len(contrasts)
    corrected = f"corrected over {count} of {size} finished"
    if count < size:
        corrected = (
            f"provisional: {corrected}; missing ones count as p = 1, so the corrected p-values can "
            "only become smaller"
        )
    lines = [f"The contrasts that were chosen beforehand ({corrected}):", ""]
    lines += ["| data | contrast | difference | p, corrected |", "|---|---|---|---|"]
    for each in contrasts:
        p_value = f"{each['p_adjusted']:.2g}" if "p_adjusted" in each else ""
        cells = (each["setting"], f"{each['arm']} − {each['against']}", _change(each), p_value)
        lines.append(_row(cells))
    return lines


def _row(cells: Iterable[str]) -> str:
    """Returns a line of a table, with bars in cells, as in "none|random_shift(1)", escaped."""
    return f"| {' | '.join(cell.replace('|', _BAR) for cell in cells)} |"


def _describe(name: str, setting: Mapping[str, Any]) -> str:
    tuning, test = setting["tuning"], setting["test"]
    return (
        f"{name}: `{setting['data']}`, trained on `{test['data.train_split']}`, tested on "
        f"`{test['data.test_split']}` with {len(test['seeds'])} seeds; tuned on "
        f"`{tuning['data.train_split']}` by `{tuning['data.test_split']}` with "
        f"{len(tuning['seeds'])}."
    )


def _line(name: str, arm: Mapping[str, Any], none: Mapping[str, Any]) -> str:
    views = _mean(arm["mean_views"]) + f" ({arm['views']})" if "views" in arm else ""
    changes = (_change(arm.get(key)) for key in ("over_none", "over_partner"))
    return _row((name, _mean(arm["mean"]), *changes, views, _told(arm["fields"], none)))


def _told(fields: Mapping[str, Any], none: Mapping[str, Any]) -> str:
    """Lists the chosen fields, and the fields of "none" that this arm leaves as in the config."""
    shown = {field: as_text(value) or "None" for field, value in fields.items()}
    shown |= {field: "of the config" for field in none if field not in fields}
    return ", ".join(f"{short(field, shown)} {value}" for field, value in shown.items())


def _floor_line(name: str, floor: Mapping[str, Any]) -> str:
    interval = f"{floor['top1']:.1f} ({floor['low']:.1f} to {floor['high']:.1f})"
    chosen = ", ".join(f"{key} {value}" for key, value in floor["chosen"].items())
    return _row((f"{name}, on pixels", interval, "", "", "", chosen))


def _mean(mean: Mapping[str, float], sign: str = "") -> str:
    half = f" ± {(mean['high'] - mean['low']) / 2:.1f}" if "low" in mean else ""
    return f"{mean['value']:{sign}.1f}{half}".replace("-", "−")


def _change(difference: Mapping[str, Any] | None) -> str:
    if difference is None:
        return ""
    remark = ", not resolved" if difference.get("resolved") is False else ""
    if "same_in_all_seeds" in difference:
        remark = ", same in all seeds"
    return _mean(difference, sign="+") + remark


@style.styled
def draw(content: Mapping[str, Any]) -> Figure:
    """Draws a panel per setting: each arm's mean with its interval, and the floors as lines."""
    settings = content["settings"]
    longest = max(len(setting["arms"]) for setting in settings.values())
    size = (style.WIDTH * (0.4 + 0.55 * len(settings)), 1.4 + 0.27 * longest)
    figure = style.new_figure(*size, wspace=0.06)
    axes = figure.subplots(1, len(settings), sharey=True, squeeze=False)[0]
    for ax, (name, setting) in zip(axes, settings.items(), strict=True):
        _draw_setting(ax, setting)
        ax.set_title(name)
        ax.set_xlabel("top-1, percent")
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(labels))
    return figure


def _draw_setting(ax: Axes, setting: Mapping[str, Any]) -> None:
    arms = setting["arms"]
    for kind, floor in setting["floors"].items():
        line = _FLOOR_LINES[kind]
        ax.axvline(floor["top1"], color=style.MUTED, linewidth=1, linestyle=line, label=kind)
    ax.axvline(arms[NOTHING]["mean"]["value"], color=style.RULE, linewidth=3, label=NOTHING)
    for row, arm in enumerate(arms.values()):
        mean = arm["mean"]
        color = style.COLORS[style.SHUFFLED if arm["on_top_of"] else style.CLEAN]
        if "low" in mean:  # not if all seeds scored the same
            ax.plot([mean["low"], mean["high"]], [row, row], color=color)
        ax.plot(mean["value"], row, "o", color=color, markersize=4)
    ax.set_yticks(range(len(arms)), list(arms))
