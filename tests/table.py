"""A supernet whose loss is a known function of the op weights and, a little, of the images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax import spaces
from prdarts_jax.search.problem import init_search
from prdarts_jax.search.step import search_step
from prdarts_jax.spaces import SearchSpace

jit_init = jax.jit(init_search, static_argnums=0)
jit_step = jax.jit(search_step, static_argnums=0)


def tables(space, layers=1):
    """{cell type: what each op adds to the loss, f32[layers, edges, ops]}, twice: for black images and for white."""
    rng = np.random.default_rng(0)
    return [
        {t: rng.uniform(0, 1, (layers, *space.shape)).astype(np.float32) for t in space.cell_types} for _ in range(2)
    ]


class Table(nn.Module):
    """The mean cross entropy of a batch whose labels are 0 is

    1 + sum w (black + (white - black) x) + sum (v w)^2

    for images of the pixels x and the supernet's weights v, which are 1/2 at first.

    Attributes:
      number: of the cells of each type.
    """

    space: SearchSpace
    number: int = 1
    num_classes: int = 2
    cells: int = 1  # it has these three fields only since methods ask for them
    dropout: str = ""
    partial: int = 1

    @property
    def layers(self) -> dict[str, int]:
        return dict.fromkeys(self.space.cell_types, self.number)

    @nn.compact
    def __call__(self, images, op_weights=None, *, train, dropout_rate=0.0):
        start = {t: jnp.where(self.space.candidates(t), 0.0, -jnp.inf) for t in self.space.cell_types}
        arch = {t: self.variable("arch", t, lambda t=t: start[t]).value for t in start}
        shape = (self.number, *self.space.shape)
        v = {t: self.param(f"v_{t}", nn.initializers.constant(0.5), shape) for t in start}
        if op_weights is None:
            op_weights = {t: jnp.broadcast_to(jax.nn.softmax(beta), shape) for t, beta in arch.items()}
        black, white = tables(self.space, self.number)
        x = images[:, 0, 0, 0]
        loss = jnp.ones(len(images))
        for t, w in op_weights.items():
            loss += jnp.sum(w * black[t]) * (1 - x) + jnp.sum(w * white[t]) * x + jnp.sum((v[t] * w) ** 2)
        others = self.num_classes - 1
        logit = loss + jnp.log1p(-jnp.exp(-loss)) - np.log(others)  # of each class but 0
        return jnp.stack([jnp.zeros_like(loss)] + others * [logit], axis=1)


def batch_of(*pixels):
    """A batch of images of 2x2 equal pixels, of label 0."""
    image = np.broadcast_to(np.array(pixels, np.float32)[:, None, None, None], (len(pixels), 2, 2, 1))
    return {"image": jnp.array(image), "label": jnp.zeros(len(pixels), jnp.int32)}


def make_table(config, method, num_classes, axis_name=None):
    """`problems.make_supernet`, but a `Table`."""
    return Table(spaces.named(config.space), 2, num_classes, **method.supernet)
