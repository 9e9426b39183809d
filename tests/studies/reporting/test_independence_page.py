"""The examples of docs/independence.md pass, and fail with a typical mistake."""

import os
import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "independence.md"
EXAMPLES = dict(
    re.findall(r"^## ([^\n]*)\n[^#]*?```python\n(.*?)```", PAGE.read_text(), re.M | re.S)
)

# for each example, its code and a mistake
MISTAKES = {
    "PyTorch": ("make_model().eval()", "make_model()"),
    "Keras": ("training=False", "training=True"),
    "scikit-learn": ("StandardScaler()", "FunctionTransformer(scale)"),
    "JAX and Flax": ("x, train=False, mutable", "x, train=True, mutable"),
    "A whole loader": ("    model.eval()", "    "),
    "Several inputs": ("mask.sum(dim=1, keepdim=True)", "mask.sum()"),
}


def run(heading: str, code: str) -> None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    for module in re.findall(r"^(?:import|from) (\w+)", code, re.M):
        pytest.importorskip(module)
    namespace = {}
    exec(compile(code, f"{PAGE.name}, {heading}", "exec"), namespace)
    (test,) = (value for name, value in namespace.items() if name.startswith("test_"))
    test()


def test_every_example_is_known():
    assert EXAMPLES.keys() == MISTAKES.keys()


@pytest.mark.parametrize("heading", MISTAKES)
def test_examples_pass(heading):
    run(heading, EXAMPLES[heading])


@pytest.mark.parametrize("heading", MISTAKES)
def test_examples_with_the_mistake_fail(heading):
    right, wrong = MISTAKES[heading]
    assert EXAMPLES[heading].count(right) == 1
    code = EXAMPLES[heading].replace(right, wrong)
    if heading == "scikit-learn":
        code = code.replace("import StandardScaler", "import FunctionTransformer, scale")
    with pytest.raises(AssertionError, match="depends on its batch"):
        run(heading, code)
