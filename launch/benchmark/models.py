"""Speed of the models against timm's: pnoise benchmark models [--flags]

Measured: the wall-clock seconds of a forward pass in evaluation and of a training step with AdamW,
on a batch of random images, for one model of each family. Ours are compiled by XLA; timm's run in
PyTorch's eager mode, as in its training script, or with --timm=eager,compiled also compiled by
torch.compile, which takes minutes per model on a CPU. All have the same weights, and use all cores
of a CPU.

If there is a GPU, both run on it: timm's in channels-last layout, with the fused AdamW, and with
automatic mixed precision for --dtype=bfloat16. Steps are then timed five in a row, because neither
side waits for a step before it starts the next. JAX_PLATFORMS=cpu makes both run on the CPU.

Printed: our time divided by timm's in the same round, as median and quartiles; on a CPU also the
median of the same ratio for CPU time, which other programs affect less; the peak memory of a call,
from the compiler for ours and from the allocator for PyTorch on GPUs; and on GPUs the share of the
bfloat16 peak rate that the model's multiplications reach, counting a training step as three forward
passes. PyTorch and timm must be installed (pip install torch timm); without them, only our times
are printed.
"""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh
from rich.console import Console

from pnoise_jax import models, parallel, training, weights
from pnoise_jax.studies import ahead_of_time
from pnoise_jax.terminal import say

from . import measuring, report, timm_step, workload

_PASSES = ("forward", "training step")
_MODELS = flags.DEFINE_list(
    "models", list(workload.FAMILIES), "Models to measure; see models.list_models()."
)
flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=1)
flags.DEFINE_integer("batch_size", 2, "Images per batch.", lower_bound=2)
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Dtype of the computation.")
_ONLY = flags.DEFINE_enum("only", None, list(_PASSES), "What to measure; by default both.")
_KERNELS = flags.DEFINE_list(
    "kernels", ["xla"], "Kernels of our attention, one alternative for each: xla, cudnn, auto."
)
flags.DEFINE_integer("rounds", 5, "Number of calls of each alternative.", lower_bound=1)
flags.DEFINE_integer(
    "steps",
    None,
    "Number of passes in a row to time at once; default: 5 on a GPU, otherwise 1.",
    lower_bound=1,
)
_TIMM = flags.DEFINE_list(
    "timm", ["eager"], "Modes of timm's models, one alternative for each: eager, compiled."
)
_OUT = flags.DEFINE_string("out", None, "JSON file for all ratios and times.")

MEAN = STD = (0.5,)
_ALTERNATIVES = {"eager": "timm", "compiled": "timm compiled"}


@dataclasses.dataclass(frozen=True)
class Spec:
    """What to measure for one model: the checked flags."""

    model: str
    image_size: int
    batch_size: int
    dtype: str
    passes: tuple[str, ...]
    kernels: tuple[str, ...]
    rounds: int
    steps: int | None
    timm: tuple[str, ...]

    @property
    def references(self) -> list[str]:
        """The names of timm's alternatives."""
        return [_ALTERNATIVES[name] for name in self.timm]


def main() -> None:
    """Measures, and prints and writes the results."""
    measuring.keep_accelerators_free()
    with_timm = all(importlib.util.find_spec(name) for name in ("torch", "timm"))
    for name in _TIMM.value:
        report.require_known("timm", name, _ALTERNATIVES)
    for kernel in _KERNELS.value:
        report.require_known("kernels", kernel, models.ATTENTION_KERNELS)
    report.require_some("kernels", _KERNELS.value, models.ATTENTION_KERNELS)
    report.require_some("models", _MODELS.value, models.list_models())
    specs = [
        report.spec_of(
            Spec,
            model=name,
            passes=(_ONLY.value,) if _ONLY.value else _PASSES,
            kernels=tuple(_KERNELS.value),
            timm=tuple(_TIMM.value) if with_timm else (),
        )
        for name in _MODELS.value
    ]
    for spec in specs:
        workload.create_model(spec)
    if not with_timm:
        say("PyTorch and timm are not installed: only our times follow (pip install torch timm)")
    elif "compiled" in _TIMM.value:
        timm_step.require_compiler()
    # Otherwise PyTorch's idle threads keep the cores busy for a while, which slows everything else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    report.run("models", specs, measure, _print, out=_OUT.value)


@dataclasses.dataclass(frozen=True)
class _Alternative:
    """One way to compute a pass.

    Attributes:
      call: makes the given number of passes in a row, and returns the logits (batch, classes), or
        the last step's loss; with ``norm=True`` also the norm of its gradient, (2,). Ours always
        compute and return the norm, timm's only then.
      peak_memory: bytes on the device at the peak of a call; None if unknown.
    """

    call: Callable[..., np.ndarray]
    peak_memory: Callable[[], int] | None


def measure(spec: Spec, mesh: Mesh) -> list[dict]:
    """A result for each pass: our alternatives and timm's."""
    on_gpu = jax.default_backend() == "gpu"
    if on_gpu and spec.timm:
        timm_step.require_gpu()
    steps = spec.steps or measuring.in_a_row(5)
    model = workload.create_model(spec)
    variables = workload.draw_variables(model, spec.image_size)
    images = jax.ShapeDtypeStruct((1, spec.image_size, spec.image_size, 3), jnp.float32)
    flops = spec.batch_size * ahead_of_time.count_flops(model.apply, variables, images)
    results = []
    for what in spec.passes:
        alternatives = _ours(spec, variables, mesh, what)
        alternatives |= _timms(spec, model, variables, what, on_gpu=on_gpu)
        differences = _compare_results(
            spec, {n: each.call(1, norm=True) for n, each in alternatives.items()}
        )
        calls = {n: functools.partial(each.call, steps) for n, each in alternatives.items()}
        measuring.warm_up(calls)
        peaks = {n: each.peak_memory() for n, each in alternatives.items() if each.peak_memory}
        times = measuring.interleave(calls, rounds=spec.rounds, per_call=steps)
        references = spec.references or list(alternatives)[:1]
        result = {
            "what": what,
            "steps": steps,
            "flops": flops * (1 if what == "forward" else 3),
            "difference": differences,
            "peak_bytes": peaks,
            "to": {name: measuring.compare(times, to=name) for name in references},
        }
        results.append(dataclasses.asdict(spec) | result)
        del alternatives, calls  # before the next pass allocates memory
    return results


def _compare_results(spec: Spec, results: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest differences from the first alternative.

    Logits are relative to the largest logit; a step's loss and its gradient's norm are each
    relative to the first alternative's.
    """
    first = np.abs(next(iter(results.values())))
    scale = first if first.ndim == 1 else first.max()
    parts = {name: result / scale for name, result in results.items()}
    tolerance = 2e-3 if spec.dtype == "float32" else 0.05
    return measuring.require_agreement(spec.model, parts, tolerance=tolerance)


def _ours(spec: Spec, variables: dict, mesh: Mesh, what: str) -> dict[str, _Alternative]:
    """Our compiled alternatives, one for each attention kernel that the model can use."""
    batch = workload.draw_batch(spec)
    prepare = _our_forward if what == "forward" else _our_step
    options = {f"ours, {kernel}": {"attention_kernel": kernel} for kernel in spec.kernels}
    if "attention_kernel" not in models.default_options(spec.model):
        options = {"ours": {}}  # the model has no attention, or a special one
    elif len(options) == 1:
        options = {"ours": next(iter(options.values()))}
    alternatives = {}
    for name, chosen in options.items():
        try:
            model = workload.create_model(spec, dtype=spec.dtype, **chosen)
            alternatives[name] = prepare(model, variables, batch, mesh)
        except (ValueError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
            if not alternatives:
                raise
            say(f"{spec.model} without {name}: {error}")
    return alternatives


def _our_forward(model, variables: dict, batch: dict, mesh: Mesh) -> _Alternative:
    images = (jnp.asarray(batch["image"], jnp.float32) / 255 - MEAN[0]) / STD[0]
    on_device = jax.device_put(variables, parallel.replicated(mesh))
    apply = jax.jit(model.apply).lower(on_device, images).compile()

    def forward(times: int, *, norm: bool = False) -> np.ndarray:
        del norm  # a forward pass has no gradient
        for _ in range(times):
            logits = apply(on_device, images)
        return np.asarray(logits)

    return _Alternative(forward, lambda: workload.peak_memory(apply))


def _our_step(model, variables: dict, batch: dict, mesh: Mesh) -> _Alternative:
    task = training.Classification(model=model, mean=MEAN, std=STD)
    imported = workload.flat(variables)
    state = workload.create_state(task, batch["image"].shape[1], mesh, imported=imported)
    batch = parallel.to_devices(batch, parallel.split_batch(mesh))
    advance = workload.make_advance(task, state, batch, mesh)

    def steps(times: int, *, norm: bool = False) -> np.ndarray:
        del norm  # the step always returns it
        metrics = advance(times)[1]
        return np.array([metrics["loss"], metrics["grad_norm"]])

    return _Alternative(steps, lambda: workload.peak_memory(advance.step))


def _timms(
    spec: Spec, model: models.Classifier, variables: dict, what: str, *, on_gpu: bool
) -> dict[str, _Alternative]:
    """timm's alternatives, which compile when they are first called."""
    if not spec.timm:
        return {}
    reference = weights.timm_reference(spec.model, model, channels=3)
    assert reference is not None, f"timm has no {spec.model}"
    name, arguments = reference
    alternatives = {}
    for mode in spec.timm:
        pair = timm_step.prepare(
            name,
            arguments,
            weights.timm_state(workload.flat(variables)),
            workload.draw_batch(spec),
            learning_rate=workload.LEARNING_RATE,
            weight_decay=training.default_config().optimizer.weight_decay,
            bfloat16=spec.dtype == "bfloat16",
            compiled=mode == "compiled",
            gpu=on_gpu,
        )
        call = pair[_PASSES.index(what)]
        peak = functools.partial(timm_step.peak_memory, functools.partial(call, 1))
        alternatives[_ALTERNATIVES[mode]] = _Alternative(call, peak if on_gpu else None)
    return alternatives


def _print(console: Console, spec: Spec, results: list[dict]) -> None:
    on_gpu = results[0]["platform"] == "gpu"
    peak_rate = measuring.PEAK_RATES.get(results[0]["device_kind"])
    columns = ["", "", "ms", "images/s", "GiB"] + ["of peak"] * bool(peak_rate)
    for name in spec.references:
        columns += [f"/ {name}"] if on_gpu else [f"/ {name}", "CPU time"]
    rows = []
    for result in results:
        for name, compared in next(iter(result["to"].values())).items():
            seconds = compared["seconds"]["median"]
            row = [result["what"], name, report.milliseconds(compared)]
            row.append(report.figure(spec.batch_size / seconds))
            peak = result["peak_bytes"].get(name)
            row.append("" if peak is None else report.figure(peak / 2**30))
            if peak_rate:
                row.append(f"{100 * result['flops'] / seconds / peak_rate:.0f} %")
            for reference in spec.references:
                to = result["to"][reference][name]
                known = name != reference
                row.append(report.ratio(to) if known else "")
                if not on_gpu:
                    row.append(f"{to['cpu_ratio']['median']:.2f}" if known else "")
            rows.append(row)
    title = (
        f"{results[0]['device_kind']}, {spec.model}, {spec.image_size} px, "
        f"batch {spec.batch_size}, {spec.dtype}, {spec.rounds} rounds"
    )
    if spec.timm:
        title += "\ntime / time of timm: median (quartiles)"
    console.print(report.table(title, columns, rows))
    report.say_agreement(console, "logits, the first loss and its gradient's norm", results)
