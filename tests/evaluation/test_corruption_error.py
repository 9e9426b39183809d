"""The measures of ImageNet-C."""

import pytest

from pnoise_jax.data.imagenet_sets import BENCHMARK, SEVERITIES
from pnoise_jax.evaluation import corruption_error
from pnoise_jax.evaluation.corruption_error import ALEXNET_ERRORS


def test_alexnet_itself_has_an_mce_of_100():
    top1 = {
        (name, severity): 100 - ALEXNET_ERRORS[name] + 2 * (severity - 3)
        for name in BENCHMARK
        for severity in SEVERITIES
    }
    errors = corruption_error.errors_by_corruption(top1)
    assert errors == pytest.approx(ALEXNET_ERRORS)
    means = corruption_error.mean_errors(errors)
    assert means["mce"] == pytest.approx(100)
    assert means["mean_error"] == pytest.approx(78.899, abs=1e-3)


def test_a_model_that_errs_half_as_often_on_one_corruption():
    errors = dict(ALEXNET_ERRORS)
    errors["brightness"] /= 2
    assert corruption_error.mean_errors(errors)["mce"] == pytest.approx(100 - 50 / 15)


def test_no_mean_where_a_corruption_or_a_severity_is_missing():
    errors = dict.fromkeys(BENCHMARK[1:], 50.0) | {"speckle_noise": 10.0}
    assert corruption_error.mean_errors(errors) == {}
    top1 = {("snow", severity): 40.0 for severity in (1, 2, 3, 4)}
    top1 |= {("fog", severity): 10.0 * severity for severity in SEVERITIES}
    assert corruption_error.errors_by_corruption(top1) == {"fog": 70.0}


def test_corruptions_outside_the_benchmark_change_no_mean():
    errors = dict.fromkeys(BENCHMARK, 50.0)
    assert corruption_error.mean_errors(errors) == corruption_error.mean_errors(
        errors | {"spatter": 99.0}
    )
