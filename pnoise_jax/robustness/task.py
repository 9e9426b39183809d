"""Classification with adversarial attacks and with noise on the weights."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax
import optax

from pnoise_jax import data, evaluation, noise
from pnoise_jax.robustness.attacks import Attack
from pnoise_jax.robustness.weight_noise import AveragedModel, WeightNoise
from pnoise_jax.training import (
    Classification,
    Metrics,
    Setup,
    State,
    StepContext,
    StrengthSchedule,
)

_ATTACKS = ("none", "fgsm", "pgd")
_PGD_STEPS = 10
_EPSILON, _ON = 8 / 255, (".*/kernel",)
_SCHEDULES = {  # and the part that each schedules
    "attack_schedule": "adversary",
    "weight_noise_schedule": "weight_noise",
    "update_noise_schedule": "update_noise",
}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RobustClassification(Classification):
    """Learns the labels of attacked images, with noisy weights; each part is off by default.

    Has the attributes of `Classification`, and these. All parts can be combined with the model's
    injections. The attack uses the same noise, dropout and perturbed weights as the forward pass of
    its step, and the targets after label smoothing and mixup. Image noise is added after the
    attack.

    Attributes:
      attack: "none", "fgsm" or "pgd".
      attack_epsilon: the largest change of a pixel, on the scale from 0 to 1.
      attack_steps: number of PGD steps; None is 10.
      attack_step_size: size of a PGD step, on the same scale; None is 2.5 epsilon / steps, or
        epsilon for a single step.
      attack_random_start: whether the attack starts at a random point within epsilon.
      attack_schedule: schedule of the factor of epsilon and the step size, such as "linear 0 to 1
        over 10 epochs"; None is constant.
      weight_noise_std: standard deviation of Gaussian noise on weights, drawn for the forward and
        backward pass of each micro-batch; the update applies to the weights without the noise. 0
        turns it off.
      weight_noise_on: regular expressions for the paths of the parameters with this noise; each
        must match a whole path.
      weight_noise_schedule: schedule of the factor of weight_noise_std.
      update_noise_std: standard deviation of Gaussian noise that stays in the weights: it is added
        after each update to all parameters that are not frozen. A moving average of the weights
        includes it from the next step on.
      update_noise_schedule: schedule of the factor of update_noise_std.
    """

    attack: str = "none"
    attack_epsilon: float = _EPSILON
    attack_steps: int | None = None
    attack_step_size: float | None = None
    attack_random_start: bool = False
    attack_schedule: str | None = None
    weight_noise_std: float = 0.0
    weight_noise_on: tuple[str, ...] = _ON
    weight_noise_schedule: str | None = None
    update_noise_std: float = 0.0
    update_noise_schedule: str | None = None

    def __post_init__(self):
        super().__post_init__()
        parts = {name: getattr(self, part) for name, part in _SCHEDULES.items()}  # checks them
        for name, part in parts.items():
            text = getattr(self, name)
            if text is not None:
                StrengthSchedule.parse(text, field=name)
                if part is None:
                    raise ValueError(f"{name}={text!r}: what it schedules is off; set it to None")
        if self.adversary is None and self.attack_epsilon != _EPSILON:
            raise ValueError(
                f"attack_epsilon={self.attack_epsilon!r}, but there is no attack; set attack to "
                "'fgsm' or 'pgd', or leave it out"
            )
        if self.weight_noise is None and tuple(self.weight_noise_on) != _ON:
            raise ValueError(
                f"weight_noise_on={self.weight_noise_on!r}, but weight_noise_std is 0; set "
                "weight_noise_std, or leave it out"
            )

    def check(self) -> None:
        """Raises ValueError if a schedule begins after the end of the run."""
        super().check()
        for name in _SCHEDULES:
            if (text := getattr(self, name)) is not None:
                schedule = StrengthSchedule.parse(text, field=f"task.{name}")
                self.require_setup().require_beginning(schedule, f"task.{name}")

    def describe_noise(self) -> list[str]:
        """Describes the attack and the noise on weights and after updates, with their schedules."""
        sentences = super().describe_noise()
        if (attack := self.adversary) is not None:
            steps = "" if self.attack == "fgsm" else f", {attack.steps} steps"
            text = f"every training image is attacked: {self.attack}, epsilon {attack.epsilon:.4g}"
            sentences.append(text + steps + self._describe_schedule("attack_schedule"))
        for name, part, where in (
            ("weight_noise_schedule", self.weight_noise, "weights, in training passes"),
            ("update_noise_schedule", self.update_noise, "weights, after each update"),
        ):
            if part is not None:
                text = f"{where}: Gaussian with std {part.std:g} on {', '.join(part.on)}"
                sentences.append(text + self._describe_schedule(name))
        return sentences

    def _describe_schedule(self, name: str) -> str:
        text = getattr(self, name)
        return "" if text is None else f"; its strength times {text}"

    @classmethod
    def from_setup(cls, setup: Setup, **options: Any) -> Self:
        """Creates the task, with the config's label smoothing and mixup."""
        task = super().from_setup(setup, **options)
        params = setup.variables["params"]
        frozen = None if setup.frozen is None else setup.frozen(params)
        if task.weight_noise is not None:
            task.weight_noise.require_fitting(params, frozen, field="weight_noise_on")
        return task

    @property
    def adversary(self) -> Attack | None:
        """The attack, or None."""
        if self.attack not in _ATTACKS:
            raise ValueError(f"attack={self.attack!r}: choose one of {', '.join(_ATTACKS)}")
        of_pgd = {"attack_steps": self.attack_steps, "attack_step_size": self.attack_step_size}
        for name, value in of_pgd.items():
            if self.attack != "pgd" and value is not None:
                raise ValueError(f"{name}={value!r}: only pgd uses it; set attack='pgd', or None")
        if self.attack == "none":
            if self.attack_random_start:
                raise ValueError(
                    "attack_random_start=True, but there is no attack; set it to False"
                )
            return None
        default = 1 if self.attack == "fgsm" else _PGD_STEPS
        try:
            return Attack(
                self.attack_epsilon,
                default if self.attack_steps is None else self.attack_steps,
                self.attack_step_size,
                self.attack_random_start,
            )
        except ValueError as error:
            raise ValueError(f"attack_{error}") from error

    @property
    def weight_noise(self) -> WeightNoise | None:
        """The weight noise of forward passes, or None."""
        try:
            weight_noise = WeightNoise(self.weight_noise_std, self.weight_noise_on)
        except ValueError as error:
            raise ValueError(f"weight_noise_{error}") from error
        return weight_noise if weight_noise.std else None

    @property
    def strongest_epsilon(self) -> float:
        """The attack's epsilon times the schedule's largest factor, at most 1; 0 for no attack."""
        if self.adversary is None:
            return 0.0
        if self.attack_schedule is None:
            return self.adversary.epsilon
        schedule = StrengthSchedule.parse(self.attack_schedule, field="attack_schedule")
        return min(1.0, self.adversary.epsilon * max(schedule.first, schedule.last))

    @property
    def update_noise(self) -> WeightNoise | None:
        """The weight noise after updates, or None."""
        try:
            update_noise = WeightNoise(self.update_noise_std, (".*",))
        except ValueError as error:
            raise ValueError(f"update_noise_{error}") from error
        return update_noise if update_noise.std else None

    def loss(
        self, params: Any, state: State, batch: data.Batch, context: StepContext
    ) -> tuple[jax.Array, tuple[State, Metrics]]:
        """Returns the cross-entropy of the attacked images; top1 is also theirs."""
        images, targets = self.inputs(batch, context)
        if self.weight_noise is not None:
            params = self.weight_noise.perturb(
                context.keys["weight_noise"],
                params,
                strength=self._factor("weight_noise_schedule", context),
            )
        if self.adversary is not None:
            images = self._attacked(params, state, images, targets, context)
        return self.cross_entropy(params, state, images, targets, batch["label"], context)

    @property
    def averaged_protocols(self) -> tuple[evaluation.Protocol, ...]:
        """The usual protocols; with weight noise, also one draw and a mean over several."""
        section = self.require_setup().config.evaluation
        if self.weight_noise is None or section.draws == 1:
            return super().averaged_protocols
        one = evaluation.Protocol(False, "shuffled", section.batch_size, weight_noise=True)
        several = dataclasses.replace(one, draws=section.draws)
        return (*super().averaged_protocols, one, several)

    def evaluate(
        self,
        variables: Mapping[str, Any],
        mesh: jax.sharding.Mesh,
        protocols: Sequence[evaluation.Protocol],
        *,
        report: Callable[[str], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Evaluates by each protocol, with noise on the weights if the protocol has it."""
        rows = []
        for protocol in protocols:
            task, known = self, protocol
            if protocol.weight_noise and (weight_noise := self.weight_noise) is not None:
                setup = self.require_setup()
                seed, classes = setup.config.evaluation.seed, setup.evaluated_data.outputs
                model: Any = AveragedModel(self.model, weight_noise, protocol.draws, seed, classes)
                # Mixing checks the model's layers, which an averaged model does not have.
                task = dataclasses.replace(
                    self, model=model, mixing=None, labels_follow_noise=False
                )
                known = dataclasses.replace(protocol, draws=1, weight_noise=False)
            (row,) = Classification.evaluate(task, variables, mesh, [known], report=report)
            rows.append(row | protocol.row())
        return rows

    def _attacked(
        self, params: Any, state: State, images: Any, targets: jax.Array, context: StepContext
    ) -> jax.Array:
        assert self.adversary is not None, "called with an attack only"
        scale = noise.PixelScale(self.mean, self.std)
        params = jax.lax.stop_gradient(params)

        def loss(pixels: jax.Array) -> jax.Array:
            logits, _ = self.apply(params, state, scale.normalise(pixels), context)
            return optax.softmax_cross_entropy(logits, targets).mean()

        pixels = self.adversary(
            context.keys["attack"],
            loss,
            scale.to_pixels(images),
            strength=self._factor("attack_schedule", context),
        )
        return scale.normalise(pixels)

    def after_update(self, state: Any, context: StepContext) -> Any:
        """Adds the update noise, if any, to the state's parameters."""
        if self.update_noise is None:
            return state
        params = self.update_noise.perturb(
            context.keys["update_noise"],
            state.params,
            strength=self._factor("update_noise_schedule", context),
        )
        frozen = None if self.setup is None else self.setup.frozen
        if frozen is not None:
            params = jax.tree.map(
                lambda is_frozen, before, after: before if is_frozen else after,
                frozen(state.params),
                state.params,
                params,
            )
        return state.replace(params=params)

    def _factor(self, name: str, context: StepContext) -> Any:
        """Returns the scheduled factor of a strength in this step."""
        text = getattr(self, name)
        if text is None:
            return 1.0
        schedule = StrengthSchedule.parse(text, field=f"task.{name}")
        return self.require_setup().factor_by_step(schedule, f"task.{name}")(context.step)
