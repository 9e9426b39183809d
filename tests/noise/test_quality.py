"""Quality matrices against their definitions (eq. 13, 14, 17, 19, 20)."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from pnoise_jax import noise

QUALITIES = [
    noise.CyclicShift(0.3),
    noise.CyclicShift(0.4, shift=-1),
    noise.CyclicShift(0.7, shift=2),
    noise.CyclicShift(1.0, shift=3),
    noise.CyclicShift(0.0),  # no noise: nothing is lost
    noise.Reverse(0.3),
    noise.Reverse(0.7),
    noise.Reverse(0.0),
    noise.Optimal(),
    noise.Optimal(strength=0.4),
    noise.Optimal(strength=0.0),
]


def test_cyclic_shift_moves_row_1_to_row_2():
    x = np.arange(1.0, 4.0)
    matrix = np.asarray(noise.CyclicShift(0.25).matrix(3))
    np.testing.assert_allclose(matrix @ x, 0.25 * (np.array([3.0, 1.0, 2.0]) - x), rtol=1e-6)


def test_reverse_is_the_flipped_identity():
    expected = 0.25 * (np.fliplr(np.eye(4)) - np.eye(4))
    np.testing.assert_allclose(noise.Reverse(0.25).matrix(4), expected, rtol=1e-6)
    assert noise.Reverse(0.3).mutual_information(65) == pytest.approx(-32 * math.log(0.4))
    assert noise.Reverse(0.5).mutual_information(5) == math.inf
    assert noise.Reverse(0.5).mutual_information(1) == 0.0
    assert noise.Reverse(0.3).violations(5) == ()
    assert any("singular" in text for text in noise.Reverse(0.5).violations(4))
    assert any("neighbour dominates" in text for text in noise.Reverse(0.6).violations(4))
    assert any("L1 norm" in text for text in noise.Reverse(-0.1).violations(4))


@pytest.mark.parametrize("k", [1, 2, 5, 10])
def test_optimal_is_equation_19(k):
    expected = np.diag(np.full(k, 1 / (k + 1) - 1)) + np.ones((k, k)) / (k + 1)
    np.testing.assert_allclose(noise.Optimal().matrix(k), expected, atol=1e-7)
    assert noise.Optimal().mutual_information(k) == pytest.approx((k - 1) * math.log(k + 1))


@pytest.mark.parametrize("k", [1, 2, 3, 6, 9, 12])
@pytest.mark.parametrize("quality", QUALITIES, ids=repr)
def test_log_abs_det_equals_the_numerical_one(quality, k):
    numerical = np.linalg.slogdet(np.eye(k) + np.asarray(quality.matrix(k), np.float64))[1]
    assert quality.log_abs_det(k) == pytest.approx(numerical, abs=2e-5)
    assert quality.mutual_information(k) == -quality.log_abs_det(k)


def test_log_abs_det_neither_underflows_nor_loses_sign():
    assert noise.CyclicShift(0.3).log_abs_det(100_000) == pytest.approx(100_000 * math.log(0.7))
    dense = noise.Dense(np.asarray(noise.Optimal().matrix(7)))
    assert dense.log_abs_det(7) == pytest.approx(noise.Optimal().log_abs_det(7), abs=1e-5)


def test_singular_at_strength_one_half_for_even_k_only():
    half = noise.CyclicShift(0.5)
    assert half.mutual_information(4) == math.inf
    assert math.isfinite(half.mutual_information(5))
    assert any("singular" in text for text in half.violations(4))
    assert half.violations(5) == ()


@pytest.mark.parametrize("k", [2, 5, 10])
def test_violations_name_the_broken_constraints(k):
    assert noise.Optimal().violations(k) == ()
    assert noise.CyclicShift(0.3).violations(k) == ()
    assert any("neighbour dominates" in text for text in noise.CyclicShift(0.6).violations(k))
    (norm,) = noise.CyclicShift(-0.2).violations(k)
    assert "L1 norm of row 0 of I+Q is 1.4" in norm
    (shrink,) = noise.Dense(-0.5 * np.eye(k)).violations(k)  # positive information, nothing gained
    assert noise.Dense(-0.5 * np.eye(k)).mutual_information(k) > 0
    assert "L1 norm" in shrink


def test_the_constraints_do_not_rule_contraction_out():
    """I + Q = e I + (1 - e) 1 1^T / k meets them all, for every e above 0."""
    k, bound = 10, noise.Optimal().mutual_information(10)
    for contraction in (1 / (k + 1), 1e-3, 1e-6):
        i_plus_q = contraction * np.eye(k) + (1 - contraction) / k
        dense = noise.Dense(i_plus_q - np.eye(k))
        assert dense.violations(k) == ()
        assert dense.mutual_information(k) == pytest.approx(-(k - 1) * math.log(contraction))
        assert dense.mutual_information(k) >= bound - 1e-9  # eq. 20 is not an upper bound
    assert noise.CyclicShift(0.5 - 1e-9).violations(k) == ()
    assert noise.CyclicShift(0.5 - 1e-9).mutual_information(k) == pytest.approx(23.97, abs=0.01)


def test_masked_matrix_is_the_smaller_matrix_of_the_kept_rows():
    mask = jnp.array([True, False, True, True, False])
    kept = np.flatnonzero(mask)
    for quality in [
        noise.CyclicShift(0.3),
        noise.CyclicShift(0.3, shift=2),
        noise.Reverse(0.3),
        noise.Optimal(),
    ]:
        masked = np.asarray(quality.matrix(5, mask=mask))
        np.testing.assert_allclose(masked[np.ix_(kept, kept)], quality.matrix(3), atol=1e-7)
        assert not masked[[1, 4]].any()
        assert not masked[:, [1, 4]].any()


@pytest.mark.parametrize("k", [4, 8])
def test_dense_sees_a_rank_that_rounding_hides(k):
    i_plus_q = np.random.default_rng(0).uniform(size=(k, k))
    i_plus_q[1] = i_plus_q[0]
    dense = noise.Dense(i_plus_q - np.eye(k))
    assert dense.mutual_information(k) == math.inf
    assert any("singular" in text for text in dense.violations(k))


@pytest.mark.parametrize(
    ("i_plus_q", "expected"),
    [
        ([[1e20, 0], [0, 1]], 20 * math.log(10)),
        ([[1e20, 0], [0, -1e-3]], 17 * math.log(10)),
        ([[1, 1e20], [0, 1]], 0),
        ([[1, 0], [0, 0]], -math.inf),
        ([[1e20, 1e20], [1, 1]], -math.inf),
    ],
)
def test_dense_of_entries_on_several_scales(i_plus_q, expected):
    dense = noise.Dense(np.array(i_plus_q) - np.eye(2))
    assert dense.log_abs_det(2) == pytest.approx(expected, abs=1e-9)


def test_dense_sees_that_the_optimal_matrix_is_singular_at_its_limit():
    """Row elimination would give a determinant of 1e-67, not 0."""
    dense = noise.Dense((1 + np.eye(5)) / 6 - np.eye(5), strength=6 / 5)
    assert dense.log_abs_det(5) == noise.Optimal(6 / 5).log_abs_det(5) == -math.inf


def test_dense_compares_and_hashes_by_value():
    a, b = noise.Dense(np.eye(3)), noise.Dense(np.eye(3))
    assert {a: "found"}[b] == "found"
    assert a != noise.Dense(2 * np.eye(3))
    with pytest.raises(ValueError, match="read-only"):
        a.values[0, 0] = 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: noise.CyclicShift(math.nan), "strength=nan"),
        (lambda: noise.CyclicShift("0.3"), "strength='0.3'"),
        (lambda: noise.Reverse(math.inf), "strength=inf"),
        (lambda: noise.CyclicShift(0.3, shift=0), "shift=0"),
        (lambda: noise.CyclicShift(0.3, shift=True), "shift=True"),
        (lambda: noise.Dense(np.ones((2, 3))), r"square.*\(2, 3\)"),
        (lambda: noise.Dense(np.ones((3, 2))), r"square.*\(3, 2\)"),
        (lambda: noise.Dense(np.ones(4)), r"square.*\(4,\)"),
        (lambda: noise.Dense(np.ones((0, 0))), r"square.*\(0, 0\)"),
        (lambda: noise.Dense(np.full((2, 2), np.inf)), "not finite"),
        (lambda: noise.Dense(np.eye(3)).matrix(4), "k=3 rows, but 4"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_another_matrix_with_an_inherited_mix_is_refused():
    with pytest.raises(
        TypeError, match=r"Third defines mixing_matrix but inherits mix and log_abs"
    ):

        class Third(noise.Optimal):
            def mixing_matrix(self, k, *, mask=None):
                return jnp.eye(k) / 3
