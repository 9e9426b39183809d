"""Safe training against a plain Python version, on sequences of diversities."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax.adaptation.ssrt.safe_training import SafeTraining

CLASSES = 12


class Plain:
    """The same in plain Python: one object, lists, NumPy's splitting."""

    def __init__(self, period, scales):
        self.period, self.scales = period, scales
        self.start, self.length, self.last_restore, self.restores = 0, period, 0, 0
        self.diversities, self.before = [], None
        self.weights = self.snapshot = 0.0

    def ramp(self, step):
        done = step - self.start
        return 1.0 if done >= self.length else math.sin(math.pi / 2 * done / self.length)

    def fell(self):
        for scale in range(self.scales + 1):

            def split(values):
                return [
                    np.mean(part)
                    for part in np.array_split(np.array(values), 2**scale)  # noqa: B023
                ]

            means = split(self.diversities)
            if self.before is not None:
                means = [split(self.before)[-1], *means]
            if any(after < mean - 1 - 1e-9 for mean, after in itertools.pairwise(means)):
                return True
        return False

    def end_step(self, step, diversity, weights):
        self.weights = weights
        self.diversities.append(diversity)
        if (step + 1) % self.period:
            return
        if self.fell() and self.ramp(step) > 0.1:
            self.weights, self.start = self.snapshot, step + 1
            if step + 1 - self.last_restore <= self.length:
                self.length *= 2
            self.last_restore, self.restores = step + 1, self.restores + 1
        else:
            self.before = self.diversities
        self.snapshot, self.diversities = self.weights, []


def logits_of(diversity):
    """Logits of 16 images that are predicted to be of ``diversity`` classes."""
    return 9 * np.eye(CLASSES, dtype=np.float32)[np.arange(16) % diversity]


def trace(safe, diversities):
    """For each step the ramp; then restores, the ramp's start and length, weights and snapshot.

    The weights are the number of the step, which shows to where they were restored.
    """
    state = safe.init(CLASSES)
    current, snapshot = {"w": jnp.float32(0)}, {"w": jnp.float32(0)}

    @jax.jit
    def advance(state, snapshot, step, logits):
        ramp = safe.ramp(state, step)
        state, diversity = safe.note(state, logits)
        current = {"w": (step + 1).astype(jnp.float32)}
        state, current, snapshot = safe.end_step(state, current, snapshot, step=step)
        return ramp, diversity, state, current, snapshot

    for step, diversity in enumerate(diversities):
        ramp, noted, state, current, snapshot = advance(
            state, snapshot, jnp.int32(step), logits_of(diversity)
        )
        assert int(noted) == diversity
        yield (
            float(ramp),
            *(int(state[name]) for name in ("restores", "ramp_start", "ramp_length")),
            float(current["w"]),
            float(snapshot["w"]),
        )
    assert advance._cache_size() == 1


def sequence(seed, steps):
    """Diversities that drift, and now and then collapse."""
    rng = np.random.default_rng(seed)
    level = rng.choice([3, 6, 9], size=steps // 10 + 1).repeat(10)[:steps]
    return np.clip(level + rng.integers(-2, 3, size=steps), 1, CLASSES).tolist()


@pytest.mark.parametrize(("period", "scales"), [(8, 3), (10, 2), (13, 3), (5, 0), (1, 0)])
def test_safe_training_equals_a_version_in_plain_python(period, scales):
    restores = 0
    for seed in range(3):
        plain, diversities = Plain(period, scales), sequence(seed, 120)
        steps = trace(SafeTraining(period, scales), diversities)
        for step, row in enumerate(steps):
            ramp = plain.ramp(step)
            plain.end_step(step, diversities[step], step + 1.0)
            expected = (plain.restores, plain.start, plain.length, plain.weights, plain.snapshot)
            assert row[0] == pytest.approx(ramp, abs=1e-6)
            assert row[1:] == expected, step
        restores += plain.restores
    assert restores >= (period > 1)


def test_the_ramp_is_a_quarter_of_a_sine_and_then_one():
    safe = SafeTraining(100, 2)
    state = safe.init(3) | {"ramp_start": jnp.int32(200), "ramp_length": jnp.int32(400)}
    ramps = [float(safe.ramp(state, jnp.int32(200 + t))) for t in (0, 100, 200, 400, 10_000)]
    np.testing.assert_allclose(ramps, [0, math.sin(math.pi / 8), math.sqrt(0.5), 1, 1], atol=1e-6)


def test_a_second_fall_soon_after_doubles_the_ramp_and_a_late_one_does_not():
    """Three periods of 4: a fall in the first (soon after the start), calm, a fall again."""
    fall = [9, 9, 2, 2]
    calm = [5] * 4
    ends = [row[1:4] for row in trace(SafeTraining(4, 1), fall + calm + calm + calm + fall)][3::4]
    assert ends == [(1, 4, 8), (1, 4, 8), (1, 4, 8), (1, 4, 8), (2, 20, 8)]
    ends = [row[1:4] for row in trace(SafeTraining(4, 1), fall + calm + fall)][3::4]
    assert ends == [(1, 4, 8), (1, 4, 8), (2, 12, 16)]


def test_nothing_is_restored_while_the_ramp_is_small():
    fall = [9, 9, 2, 2]
    state = SafeTraining(4, 1).init(CLASSES) | {"ramp_length": jnp.int32(1000)}
    safe = SafeTraining(4, 1)
    for step, diversity in enumerate(fall):
        state, _ = safe.note(state, logits_of(diversity))
        state, current, _ = safe.end_step(state, None, None, step=jnp.int32(step))
    assert current is None
    assert int(state["restores"]) == 0


def test_a_fall_of_exactly_one_is_not_too_large():
    """From thirds to thirds, whose difference in float32 can be a little more than one."""
    for total in range(6, 16):
        before, after = (np.diff(np.arange(4) * x // 3).tolist() for x in (total, total - 3))
        assert list(trace(SafeTraining(3, 0), before + after))[-1][1] == 0, total


def test_micro_batches_count_together():
    safe = SafeTraining(4, 1)
    state, _ = safe.note(safe.init(CLASSES), logits_of(2))
    state, diversity = safe.note(state, np.roll(logits_of(3), 1, axis=1))
    assert int(diversity) == 3
    state, _, _ = safe.end_step(state, None, None, step=jnp.int32(2))
    assert state["diversities"].tolist() == [0, 0, 4, 0]
    assert not state["seen"].any()


@pytest.mark.parametrize(
    ("period", "scales", "message"),
    [
        (8, 4, r"period of 8 steps into 2\^4 parts"),
        (8, -1, "scales=-1"),
        (0, 0, "period of 0 steps"),
        (8.0, 1, "period=8.0: give a whole number"),
        (8, True, "scales=True: give a whole number"),
    ],
)
def test_bad_settings_are_named(period, scales, message):
    with pytest.raises(ValueError, match=message):
        functools.partial(SafeTraining, period, scales)()
