"""Parameters and optimiser state split over devices: fully sharded data parallelism (FSDP).

Every device of a group keeps its share of each large array, and the compiler gathers an array where
it is used and scatters its gradient. See https://arxiv.org/abs/2004.13336.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pnoise_jax.parallel.mesh import FSDP_AXIS, replicated, split_batch

SMALLEST = 2**16  # elements: what gathering a smaller array costs is not worth the memory


def is_split(mesh: Mesh) -> bool:
    """Whether parameters are split on this mesh."""
    return mesh.shape.get(FSDP_AXIS, 1) > 1


def place(tree: Any, mesh: Mesh, *, smallest: int = SMALLEST) -> Any:
    """How the arrays of a tree lie on the devices.

    An array of at least ``smallest`` elements is split along its largest axis that the devices of a
    group divide, the last of several; any other is on every device.

    Args:
      tree: of arrays or of their shapes and dtypes.
      mesh: `training_mesh`, or one without groups, on which nothing is split.

    Returns:
      A tree of shardings.
    """
    return jax.tree.map(lambda x: _place_one(x.shape, mesh, smallest), tree)


def _place_one(shape: tuple[int, ...], mesh: Mesh, smallest: int) -> NamedSharding:
    chosen = _axis_to_split(shape, mesh.shape.get(FSDP_AXIS, 1), smallest)
    if chosen is None:
        return replicated(mesh)
    return NamedSharding(mesh, PartitionSpec(*[None] * chosen, FSDP_AXIS))


def _axis_to_split(shape: tuple[int, ...], devices: int, smallest: int) -> int | None:
    axes = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if devices == 1 or not axes or math.prod(shape) < smallest:
        return None
    return max(axes, key=lambda axis: (shape[axis], axis))


def require_split(params: Any, fsdp: int) -> None:
    """Raises ValueError where groups of ``fsdp`` devices would split none of these parameters."""
    shapes = [x.shape for x in jax.tree.leaves(params)]
    if fsdp > 1 and all(_axis_to_split(shape, fsdp, SMALLEST) is None for shape in shapes):
        raise ValueError(
            f"fsdp={fsdp} would split no parameter: those of at least {SMALLEST} elements with an "
            f"axis that {fsdp} divides are split, and the largest is {max(shapes, key=math.prod)}; "
            "set fsdp=1"
        )


@contextlib.contextmanager
def keep_batches_split(mesh: Mesh) -> Iterator[None]:
    """While a step is traced, the results of all Linen modules stay split by examples.

    Without it the compiler may split activations as the parameters are split, and exchange these,
    which are larger. Does nothing on a mesh that splits no parameters.
    """
    if not is_split(mesh):
        yield
        return

    def keep(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.ndim < 2 or x.shape[0] % mesh.size:
            return x
        return jax.lax.with_sharding_constraint(x, split_batch(mesh))

    def interceptor(
        call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
        del context
        return jax.tree.map(keep, call(*args, **kwargs))

    with nn.intercept_methods(interceptor):
        yield
