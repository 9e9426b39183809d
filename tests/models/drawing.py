"""Random variables for tests, since initialising compiles for seconds."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def draw_variables(model: nn.Module, images: jax.Array) -> dict:
    """Random variables, so that biases matter, too; far faster than initialising."""
    rng = np.random.default_rng(0)

    def draw(path, shape: jax.ShapeDtypeStruct) -> jax.Array:
        around_one = path[-1].key in ("scale", "var")
        x = rng.uniform(0.5, 1.5, shape.shape) if around_one else rng.normal(0, 0.2, shape.shape)
        return jnp.asarray(x, shape.dtype)

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return jax.tree_util.tree_map_with_path(draw, shapes)
