import pytest

from pnoise_jax.counting import counted


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "example"), "0 examples"),
        ((1, "example"), "1 example"),
        ((0.6, "example"), "1 example"),
        ((1000, "example"), "1000 examples"),
        ((1, "class", "classes"), "1 class"),
        ((2, "class", "classes"), "2 classes"),
    ],
)
def test_one_thing_is_singular(arguments, text):
    assert counted(*arguments) == text
