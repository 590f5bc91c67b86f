"""Terms: functions that a method adds to the validation loss, which the logits minimise.

A term is a frozen, hashable object or a plain function, called as `(view, op_weights, progress) -> (scalar, metrics)`.
`progress` is the fraction of the search done, f32[] in [0, 1]. Arrays are {cell type: f32[edges, ops]} in the order of
`space.edges` and `space.ops`.
"""

from prdarts_jax.search.terms.base import CellTerm, Term, View, total
from prdarts_jax.search.terms.beta_decay import beta_decay
from prdarts_jax.search.terms.dirichlet_kl import dirichlet_kl
from prdarts_jax.search.terms.entropy import entropy
from prdarts_jax.search.terms.expected_cost import expected_cost
from prdarts_jax.search.terms.path_depth import path_depth
from prdarts_jax.search.terms.scheduled import scheduled
from prdarts_jax.search.terms.score_function import score_function
from prdarts_jax.search.terms.sparsity import group_sparsity, nonskip_sparsity, skip_sparsity
from prdarts_jax.search.terms.zero_one import zero_one

__all__ = [
    "CellTerm",
    "Term",
    "View",
    "beta_decay",
    "dirichlet_kl",
    "entropy",
    "expected_cost",
    "group_sparsity",
    "nonskip_sparsity",
    "path_depth",
    "scheduled",
    "score_function",
    "skip_sparsity",
    "total",
    "zero_one",
]
