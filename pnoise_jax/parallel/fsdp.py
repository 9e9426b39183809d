"""Parameters and optimiser state split over devices: fully sharded data parallelism (FSDP).

Every device of a group keeps a share of each large array, and the compiler gathers an array where
it is used and scatters its gradient. See https://arxiv.org/abs/2004.13336.
"""

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pnoise_jax.parallel.matmuls import MatmulSplit
from pnoise_jax.parallel.mesh import FSDP_AXIS, MODEL_AXIS

SMALLEST = (
    2**16
)  # elements; splitting a smaller array saves too little memory to be worth gathering


def place(
    tree: Any, mesh: Mesh, split: MatmulSplit | None = None, *, smallest: int = SMALLEST
) -> Any:
    """The shardings of the arrays of a tree.

    Parameters of matrix products that devices share are split as ``split`` says. In addition, any
    array of at least ``smallest`` elements is split along its largest other axis that the ``fsdp``
    devices divide, the last one if several are equally large. All other arrays are on every device.

    Args:
      tree: arrays, or their shapes and dtypes.
      mesh: `training_mesh`, or one without groups, on which nothing is split.
      split: which matrix products of the model devices share.
      smallest: the fewest elements of an array that is split over ``fsdp`` devices.

    Returns:
      A tree of shardings.
    """

    def place_one(path: Any, x: Any) -> NamedSharding:
        devices, taken = mesh.shape.get(MODEL_AXIS, 1), None
        if split is not None and devices > 1:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            taken = split.axis(name, len(x.shape))
            taken = None if taken is None or x.shape[taken] % devices else taken
        return _place_one(x.shape, mesh, smallest, taken)

    return jax.tree_util.tree_map_with_path(place_one, tree)


def _place_one(
    shape: tuple[int, ...], mesh: Mesh, smallest: int, taken: int | None
) -> NamedSharding:
    chosen = _axis_to_split(shape, mesh.shape.get(FSDP_AXIS, 1), smallest, taken)
    axes = {chosen: FSDP_AXIS, taken: MODEL_AXIS}
    last = max((axis for axis in axes if axis is not None), default=-1)
    return NamedSharding(mesh, PartitionSpec(*map(axes.get, range(last + 1))))


def _axis_to_split(
    shape: tuple[int, ...], devices: int, smallest: int, taken: int | None = None
) -> int | None:
    axes = [axis for axis, size in enumerate(shape) if size % devices == 0 and axis != taken]
    if devices == 1 or not axes or math.prod(shape) < smallest:
        return None
    return max(axes, key=lambda axis: (shape[axis], axis))


def require_split(params: Any, fsdp: int) -> None:
    """Raises ValueError if groups of ``fsdp`` devices would split none of these parameters."""
    shapes = [x.shape for x in jax.tree.leaves(params)]
    if fsdp > 1 and all(_axis_to_split(shape, fsdp, SMALLEST) is None for shape in shapes):
        raise ValueError(
            f"fsdp={fsdp} would split no parameter: only those of at least {SMALLEST} elements "
            f"with an axis that {fsdp} divides are split, and the largest is "
            f"{max(shapes, key=math.prod)}; set fsdp=1"
        )
