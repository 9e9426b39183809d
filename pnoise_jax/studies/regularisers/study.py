"""Compares regularisers: each is tuned on held-out training examples, then tested once."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from rich.console import Console

from pnoise_jax import runs
from pnoise_jax.registry import did_you_mean
from pnoise_jax.studies.regularisers import report, study_file, summary
from pnoise_jax.studies.regularisers.cells import check_cells
from pnoise_jax.studies.regularisers.checks import (
    check_arms,
    check_contrasts,
    check_settings,
    check_splits,
)
from pnoise_jax.studies.regularisers.floors import measure_floors
from pnoise_jax.studies.regularisers.plan import Arm, Fields, Seeds, Setting
from pnoise_jax.studies.sweep import Group, override, run_sweep
from pnoise_jax.terminal import create_console, printable


def compare_regularisers(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    *,
    arms: Mapping[str, Arm],
    settings: Mapping[str, Setting],
    contrasts: Sequence[tuple[str, str]],
    names: Sequence[str] | None = None,
    seeds: Seeds | None = None,
    together: str = "never",
    command: str | None = None,
) -> dict[str, Any]:
    """Tunes and tests all arms in each setting, and writes the results.

    Each setting has a directory with three sweeps: tuning, tuning_on_top (for arms on top of
    another) and test. Finished runs are not repeated, so the same call resumes, and several
    processes can run different settings at the same time. study.json records the comparison; the
    work directory rejects any other comparison. After each setting, regularisers.json, .csv, .md,
    .svg and .png of all finished settings are written to ``workdir``.

    Args:
      config: the config of all runs.
      workdir: the work directory; created if necessary.
      arms: the arms by name, all with the same number of candidates.
      settings: the settings by name.
      contrasts: pairs of arms chosen beforehand; the first is compared with the second.
      names: names of the settings to run, in this order; None runs all.
      seeds: the seeds of both stages.
      together: as for `run_sweep`.
      command: the command line, for the report.

    Returns:
      The content of regularisers.json.

    Raises:
      ValueError, OSError: an arm, a setting, a contrast or the work directory is invalid. This is
        raised before any training, and the message names the cause.
      NonFiniteLossError, StoppedError: as for `run_sweep`; finished runs are kept.
    """
    seeds = Seeds() if seeds is None else seeds
    check_settings(settings)
    check_arms(arms)
    check_contrasts(contrasts, arms)
    configs = _configs(config, settings, list(settings) if names is None else names)
    for name, setting_config in configs.items():
        check_splits(setting_config, name, settings[name])
        check_cells(setting_config, name, settings[name], arms)
    described = study_file.describe(config, arms, settings, seeds, contrasts)
    path, console = runs.make_writable(workdir), create_console()
    study_file.claim(path, described, config, settings)
    for name, setting_config in configs.items():
        console.rule(name)
        run = _SettingRun(
            setting_config, settings[name], arms, seeds, path / name, together, console
        )
        summary.write_setting(path / name, run.finish())
        report.write(path, summary.collect(path, settings, contrasts, command))
    content = summary.collect(path, settings, contrasts, command)
    console.print(report.markdown(content), soft_wrap=True, markup=False, highlight=False)
    for file in report.FILES:
        console.print(f"wrote {printable(str(path / file))}", soft_wrap=True)
    return content


def _configs(
    config: ml_collections.ConfigDict, settings: Mapping[str, Setting], names: Sequence[str]
) -> dict[str, ml_collections.ConfigDict]:
    """Returns the config of each setting to run, by name."""
    if not names:
        raise ValueError("--settings= names no setting: name one, or leave the flag out for all")
    configs = {}
    for name in names:
        if name not in settings:
            raise ValueError(
                f"--settings={','.join(names)}: {name!r} is unknown{did_you_mean(name, settings)}"
            )
        try:
            configs[name] = override(config, settings[name].fields)
        except ValueError as error:
            raise ValueError(f"settings()[{name!r}]: {error}") from None
    return configs


class _SettingRun:
    """One setting: its three sweeps and the floors."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        setting: Setting,
        arms: Mapping[str, Arm],
        seeds: Seeds,
        path: Path,
        together: str,
        console: Console,
    ):
        self._config, self._setting, self._arms, self._seeds = config, setting, arms, seeds
        self._path, self._together, self._console = path, together, console

    def finish(self) -> dict[str, Any]:
        """Runs the missing sweeps; returns the accuracies and how the candidates were chosen."""
        self._path.mkdir(parents=True, exist_ok=True)
        chosen: dict[str, Fields] = {}
        tuned: dict[str, list[dict[str, Any]]] = {}
        for stage, on_top in zip(study_file.STAGES[:2], (False, True), strict=True):
            candidates = {
                name: [
                    {**chosen.get(arm.on_top_of or "", {}), **fields} for fields in arm.candidates
                ]
                for name, arm in self._arms.items()
                if (arm.on_top_of is not None) == on_top
            }
            if candidates:
                tuned |= self._tune(stage, candidates)
                chosen |= {name: _best(tried)["fields"] for name, tried in tuned.items()}
        return {
            "data": self._config.data.name,
            "tuning": {**self._setting.splits(tuning=True), "seeds": self._seeds.tuning},
            "test": {**self._setting.splits(tuning=False), "seeds": self._seeds.test},
            "arms": self._test(chosen, tuned),
            "floors": measure_floors(self._config, self._setting),
        }

    def _tune(
        self, stage: str, candidates: Mapping[str, Sequence[Fields]]
    ) -> dict[str, list[dict[str, Any]]]:
        """Tunes the candidates; returns them by arm, with their accuracy on held-out examples."""
        flat = [(name, fields) for name, several in candidates.items() for fields in several]
        groups = self._sweep(stage, [fields for _, fields in flat], self._seeds.tuning)
        shutil.rmtree(self._path / stage / "runs", ignore_errors=True)  # no longer needed
        tuned: dict[str, list[dict[str, Any]]] = {}
        for (name, fields), group in zip(flat, groups, strict=True):
            tried = {"fields": fields, "held_out_top1": group.means["clean"].value}
            tuned.setdefault(name, []).append(tried)
        return tuned

    def _test(
        self, chosen: Mapping[str, Fields], tuned: Mapping[str, list[dict[str, Any]]]
    ) -> dict[str, dict[str, Any]]:
        """Tests the chosen candidate of each arm; returns its accuracy by seed, also with views."""
        views = {name: self._arms[name].views for name in chosen if self._arms[name].views > 1}
        cells = [
            *chosen.values(),
            *({**chosen[name], "evaluation.views": count} for name, count in views.items()),
        ]
        groups = self._sweep("test", cells, self._seeds.test)
        tested = {
            name: {
                "fields": chosen[name],
                "on_top_of": self._arms[name].on_top_of,
                "tuning": tuned[name],
                "top1": _by_seed(group),
            }
            for name, group in zip(chosen, groups, strict=False)
        }
        for (name, count), group in zip(views.items(), groups[len(chosen) :], strict=True):
            tested[name] |= {"views": count, "top1_views": _by_seed(group)}
        return tested

    def _sweep(self, stage: str, cells: Sequence[Fields], seeds: Sequence[int]) -> list[Group]:
        self._console.print(f"{stage}: {len(cells)} settings, {len(seeds)} seeds")
        base = override(self._config, self._setting.splits(tuning=stage != "test"))
        return run_sweep(
            base,
            [{**fields, "seed": seed} for fields in cells for seed in seeds],
            self._path / stage,
            together=self._together,
            clean_only=True,
            console=self._console,
        )


def _best(tried: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns the candidate with the highest accuracy; the first one if several tie."""
    return max(tried, key=lambda candidate: candidate["held_out_top1"])


def _by_seed(group: Group) -> list[float]:
    return [float(row["clean_top1"]) for row in group.rows.values()]
