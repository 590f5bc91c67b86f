"""Relaxations: from logits to the op weights of a forward pass.

A relaxation is a frozen, hashable dataclass. Logits, op weights and probabilities are {cell type: f32[edges, ops]}; a
relaxation may keep further arrays beside the logits, which the optimizer of the logits then trains too. An op whose
logit is -inf is no candidate: its weight is 0. `progress` is the fraction of the search done, f32[] in [0, 1].
"""

from prdarts_jax.search.relaxations.auxiliary_skip import AuxiliarySkip
from prdarts_jax.search.relaxations.base import Arch, Metrics, Relaxation, keys
from prdarts_jax.search.relaxations.dirichlet import Dirichlet
from prdarts_jax.search.relaxations.gumbel import Concrete, Gumbel
from prdarts_jax.search.relaxations.hard_concrete import HardConcrete
from prdarts_jax.search.relaxations.policy import Policy
from prdarts_jax.search.relaxations.reinmax import ReinMax
from prdarts_jax.search.relaxations.sigmoid import Sigmoid
from prdarts_jax.search.relaxations.softmax import EdgeSoftmax, Softmax
from prdarts_jax.search.relaxations.uniform import Uniform

__all__ = [
    "Arch",
    "AuxiliarySkip",
    "Concrete",
    "Dirichlet",
    "EdgeSoftmax",
    "Gumbel",
    "HardConcrete",
    "Metrics",
    "Policy",
    "ReinMax",
    "Relaxation",
    "Sigmoid",
    "Softmax",
    "Uniform",
    "keys",
]
