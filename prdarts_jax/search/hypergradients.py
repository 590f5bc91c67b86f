"""How the logits' gradient takes account of the weights, which follow the logits: hypergradients.

The weights w minimise the training loss at the logits a, so the validation loss depends on a in two ways:

  d/da L_val(w(a), a) = dL_val/da + dL_val/dw dw/da

A hypergradient is a frozen, hashable value that says what is taken for dw/da. It is called with a `Bilevel` and returns
(gradient in the logits, aux). The losses are functions of pytrees and know nothing of supernets, so each hypergradient
can be checked on a problem of a few numbers. All second derivatives are forward mode over reverse mode.

>>> def val_loss(w, a):  # with the training loss below, w(a) = a, so the derivative of w(a)^2 / 2 in a is a
...     return w**2 / 2
>>> problem = Bilevel(
...     train_loss=lambda w, a: (w - a) ** 2 / 2,
...     val_gradient=lambda w, a, argnums: (jax.grad(val_loss, argnums)(w, a), {}),
...     update=lambda gradient, w, opt_state: (w - 0.5 * gradient, opt_state),
...     params=jnp.float32(1),
...     opt_state=(),
...     arch=jnp.float32(1),
... )
>>> ways = FirstOrder(), Unrolled(1), Unrolled(2), Neumann(1), ConjugateGradient(1, damping=0.0)
>>> [float(way(problem)[0]) for way in ways]
[0.0, 0.5, 0.75, 0.75, 1.0]
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from prdarts_jax.fields import at_least, checked, from_to

Tree = Any


@dataclasses.dataclass(frozen=True)
class Bilevel:
    """A point of a search, and the two losses there.

    Attributes:
      train_loss: of (params, arch), that is w and a.
      val_gradient: (params, arch, argnums) -> (the gradients of the validation loss in these arguments, aux).
      update: (gradient in params, params, opt_state) -> (params, opt_state) after a step of the weights' optimizer.
      params: the weights w.
      opt_state: the state of their optimizer.
      arch: the logits a.
      grad: takes derivatives of the training loss; see `devices.grad`.
    """

    train_loss: Callable[[Tree, Tree], jax.Array]
    val_gradient: Callable[[Tree, Tree, tuple[int, ...]], tuple[tuple[Tree, ...], Any]]
    update: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
    params: Tree
    opt_state: Tree
    arch: Tree
    grad: Callable = jax.grad

    def slope(self, params: Tree, arch: Tree) -> Tree:
        """dL_train/dw, which reverse mode can differentiate: its derivative here is that of forward mode."""
        gradient = self.grad(self.train_loss)
        slope = jax.custom_vjp(lambda params, arch: gradient(params, arch))

        def backward(point, vector):
            params, arch = point
            return dataclasses.replace(self, params=params, arch=arch).along(vector, (0, 1))

        slope.defvjp(lambda *point: (gradient(*point), point), backward)
        return slope(params, arch)

    def along(self, vector: Tree, argnums: int | tuple[int, ...]) -> Tree:
        """The derivative, when the weights move along a vector, of dL_train/dw (argnums 0) or dL_train/da (argnums 1).

        These are the products of the vector with the Hessian and with the mixed second derivatives.
        """
        gradient = self.grad(self.train_loss, argnums=argnums)
        return jax.jvp(lambda params: gradient(params, self.arch), (self.params,), (vector,))[1]


Hypergradient = Callable[[Bilevel], tuple[Tree, Any]]


@checked
@dataclasses.dataclass(frozen=True)
class FirstOrder:
    """dw/da = 0: the weights are constants (DARTS; Liu et al., ICLR 2019, xi = 0)."""

    def __call__(self, problem: Bilevel) -> tuple[Tree, Any]:
        """(gradient in arch, aux)."""
        (darch,), aux = problem.val_gradient(problem.params, problem.arch, (1,))
        return darch, aux


@checked
@dataclasses.dataclass(frozen=True)
class Unrolled:
    """The validation loss is that of the weights after some steps of their optimizer, all on the same training batch.

    One step is the second order of DARTS (Liu et al., ICLR 2019, equation 7), exactly. With w'(a) the weights after it,
    and v the product of dL_val/dw' (w', a) with the Jacobian of the step in dL_train/dw,
      d/da L_val(w'(a), a) = dL_val/da (w', a) + d/dt dL_train/da (w + t v, a) at t = 0.
    For SGD with the learning rate xi, v is -xi dL_val/dw', as in the paper. More steps repeat this, from the last to
    the first. They need memory for the weights after each step, and each is compiled by itself.

    Attributes:
      steps: number of steps, at least 1.
    """

    steps: Annotated[int, from_to(1, 1000)] = 1

    def __call__(self, problem: Bilevel) -> tuple[Tree, Any]:
        """(gradient in arch, aux); aux is that of the weights after the steps."""
        gradient = problem.grad(problem.train_loss)(problem.params, problem.arch)
        moved, pull_back = jax.vjp(functools.partial(self._move, problem), gradient, problem.arch)
        (dmoved, darch), aux = problem.val_gradient(moved, problem.arch, (0, 1))
        direction, of_later_steps = pull_back(dmoved)
        return _sum(darch, problem.along(direction, 1), of_later_steps), aux

    def _move(self, problem, gradient, arch):
        """The weights after the steps, of which the first has this gradient."""
        params, opt_state = problem.update(gradient, problem.params, problem.opt_state)
        for _ in range(1, self.steps):
            params, opt_state = problem.update(problem.slope(params, arch), params, opt_state)
        return params


@checked
@dataclasses.dataclass(frozen=True)
class Neumann:
    """The implicit gradient at weights that a step of their optimizer leaves where they are, by a Neumann series
    (Lorraine, Vicol, Duvenaud, AISTATS 2020, equation 7; iDARTS; Zhang et al., ICML 2021, equation 9).

    For SGD with the learning rate xi, and H the Hessian of the training loss in w,
      d/da L_val(w(a), a) = dL_val/da - d2 L_train/da dw  xi (v + (1 - xi H) v + (1 - xi H)^2 v + ...),  v = dL_val/dw.
    The sum tends to the solution of H p = v if no eigenvalue of xi H is outside (0, 2). Here 1 - xi H is the derivative
    of the optimizer's next step, which has its current learning rate, weight decay (then a part of H) and clipping. All
    derivatives are those at the current weights. For SGD without momentum, n terms give the gradient of n unrolled
    steps from a minimum.

    Attributes:
      products: number of products with the Hessian; the sum has one more term. Each costs as much as two to three
        gradients. With 0, the Hessian is replaced by 1 / xi.
    """

    products: Annotated[int, from_to(0, 10**6)] = 2

    def __call__(self, problem: Bilevel) -> tuple[Tree, Any]:
        """(gradient in arch, aux)."""
        (vector, darch), aux = problem.val_gradient(problem.params, problem.arch, (0, 1))
        gradient = problem.grad(problem.train_loss)(problem.params, problem.arch)
        _, pull_back = jax.vjp(lambda g, w: problem.update(g, w, problem.opt_state)[0], gradient, problem.params)

        def add_term(_, carry):
            (direction, kept), total = carry
            term = pull_back(_sum(kept, problem.along(direction, 0)))
            return term, _sum(total, term[0])

        first = pull_back(vector)
        _, direction = jax.lax.fori_loop(0, self.products, add_term, (first, first[0]))
        return _sum(darch, problem.along(direction, 1)), aux


@checked
@dataclasses.dataclass(frozen=True)
class ConjugateGradient:
    """The implicit gradient by the method of conjugate gradients (Pedregosa, ICML 2016, algorithm 1).

    With H the Hessian of the training loss in w,
      d/da L_val(w(a), a) = dL_val/da - d2 L_train/da dw p,  (H + damping) p = dL_val/dw,
    both at the current weights, where p is found in a given number of iterations from 0 on. The matrix H + damping must
    be positive definite. The Hessian of a network is not, so the damping must be above its lowest eigenvalue, negated.

    Attributes:
      products: number of iterations, with one product with the Hessian each; one product more is needed at the start.
      damping: what is added to each eigenvalue of H, for instance the weight decay.
    """

    products: Annotated[int, from_to(1, 10**6)]
    damping: Annotated[float, at_least(0)]

    def __call__(self, problem: Bilevel) -> tuple[Tree, Any]:
        """(gradient in arch, aux)."""
        (vector, darch), aux = problem.val_gradient(problem.params, problem.arch, (0, 1))

        def product(p):
            return jax.tree.map(lambda h, x: h + self.damping * x, problem.along(p, 0), p)

        # The tolerance ends the iterations before rounding errors alone are left.
        solution, _ = jax.scipy.sparse.linalg.cg(product, vector, tol=1e-7, maxiter=self.products)
        return jax.tree.map(jnp.subtract, darch, problem.along(solution, 1)), aux


def _sum(*trees):
    return jax.tree.map(lambda *leaves: functools.reduce(jnp.add, leaves), *trees)
