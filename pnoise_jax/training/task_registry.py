"""Tasks by name (registered, imported lazily, or given as "module:Name") and their options."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import ml_collections

from pnoise_jax.registry import Registry, did_you_mean
from pnoise_jax.training.setup import Setup
from pnoise_jax.training.task import Task


def _require_task(kind: Any) -> None:
    """Raises ValueError, naming what is missing, unless `kind` is a valid subclass of `Task`."""
    name = getattr(kind, "__name__", repr(kind))
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise ValueError(f"{name} is not a task: make it a subclass of training.Task")
    if kind.loss is Task.loss:
        raise ValueError(f"{name} has no loss: define it; see training.Task for what a task needs")
    for field in _options(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(
                f"{name}.{field.name} has no default: give it one, since a config can leave it out"
            )
    declared = set(inspect.get_annotations(kind)) - {
        "classifies",
        "target_fields",
        "step_measures",
        "row_measures",
        "describe_noise",
    }
    if "__dataclass_params__" not in vars(kind) and declared:
        raise ValueError(
            f"{name} declares fields but is not a dataclass: decorate it with "
            "@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)"
        )


TASKS: Registry[type[Task]] = Registry("task", _require_task)
for _name, _place in (
    ("source_only", "adaptation.source_only:SourceOnly"),
    ("dann", "adaptation.dann:Dann"),
    ("tvt", "adaptation.tvt:Tvt"),
    ("ssrt", "adaptation.ssrt.ssrt:Ssrt"),
    ("cdtrans", "adaptation.cdtrans.cdtrans:CdTrans"),
    ("robust_classification", "robustness.task:RobustClassification"),
    ("denoising", "denoising.task:Denoising"),
    ("consistency", "semi_supervised.consistency:Consistency"),
):
    TASKS.register_lazily(_name, f"pnoise_jax.{_place}")


def register_task(name: str) -> Callable[[type[Task]], type[Task]]:
    """A decorator that registers a task by name, for ``config.task.name = "mine"``.

    A task that is not registered is set by ``config.task.name = "module:Class"``.

    Args:
      name: the name; it must be new.

    Raises:
      ValueError: the name is taken, or the class lacks something that every `Task` must define.
    """
    return functools.partial(TASKS.register, name)


def task_config(name: str, **options: Any) -> ml_collections.ConfigDict:
    """The task section of a config: a task's name and all its options.

    Raises:
      ValueError: the name or an option is unknown.
    """
    defaults = default_task_options(name)
    _require_known(name, options, defaults)
    return ml_collections.ConfigDict({"name": name} | defaults | options)


def default_task_options(name: str) -> dict[str, Any]:
    """The options of a task and their defaults.

    Raises:
      ValueError: there is no such task, or it cannot be imported.
    """
    return {
        field.name: field.default
        if field.default_factory is dataclasses.MISSING
        else field.default_factory()
        for field in _options(TASKS[name])
    }


def create_task(setup: Setup) -> Task:
    """The task that the config of a run names.

    Raises:
      ValueError: the task or an option is unknown, or the task rejects a value.
    """
    kind, options = _find_task(setup.config.task)
    try:
        return kind.from_setup(setup, **options)
    except ValueError as error:
        raise ValueError(f"task: {error}") from error


def prepare_model(section: Mapping[str, Any], model: nn.Module) -> nn.Module:
    """The model that the task of a config trains; see `Task.prepare_model`.

    Raises:
      ValueError: the task or an option is unknown, or the model does not suit the task.
    """
    kind, options = _find_task(section)
    return kind.prepare_model(model, **options)


def _find_task(section: Mapping[str, Any]) -> tuple[type[Task], dict[str, Any]]:
    options = dict(section)
    name = options.pop("name", None)
    _require_known(name, options, default_task_options(name))
    return TASKS[name], options


@functools.cache
def _options(kind: type[Task]) -> list[dataclasses.Field]:
    """The fields that are options: not those of `Task`, nor those filled from other sections."""
    common = {field.name for field in dataclasses.fields(Task)}
    return [
        field
        for field in dataclasses.fields(kind)
        if field.name not in common and not field.metadata.get("from_config")
    ]


def _require_known(name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for option in options:
        if option not in known:
            if not known:
                raise ValueError(f"task.{option}: the task {name!r} has no options; leave it out")
            raise ValueError(
                f"task.{option}: unknown option of {name!r}{did_you_mean(option, known)}"
            )
