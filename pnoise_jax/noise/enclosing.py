"""Which of JAX's and Flax's transforms a module is called inside, read from the call stack."""

import sys
import types
from collections.abc import Callable, Collection
from typing import Any

# (module, function) of the frames that each transform leaves on the stack.
NN_JIT = {("flax.core.lift", "jitted")}
VMAP = {("jax._src.api", "vmap_f")}
LOOPS = {
    ("jax._src.lax.control_flow.loops", "scan"),  # lax.map calls it, too
    ("jax._src.lax.control_flow.loops", "while_loop"),  # and fori_loop this one
}


def call(model: Callable, *args: Any, **kwargs: Any) -> Any:
    """Calls ``model``. `is_inside` does not look further out than the innermost such call."""
    return model(*args, **kwargs)


def is_inside(transforms: Collection[tuple[str, str]]) -> bool:
    """Whether the model that `call` calls has applied one of these transforms around this line.

    Args:
      transforms: such as `VMAP`, or a union of several.
    """
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not call.__code__:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in transforms:
            return True
        frame = frame.f_back
    return False
