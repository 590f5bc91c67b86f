"""Differentiable architecture search as pure functions: PR-DARTS, DARTS and their bilevel step in JAX."""

from prdarts_jax.bilevel import SearchProblem, SearchState, init_search, search_epoch, search_step
from prdarts_jax.data import Augmentation
from prdarts_jax.genotypes import Genotype
from prdarts_jax.methods import Darts, Method, PRDarts
from prdarts_jax.spaces import SearchSpace, darts
from prdarts_jax.supernet import Supernet

__all__ = [
    "Augmentation",
    "Darts",
    "Genotype",
    "Method",
    "PRDarts",
    "SearchProblem",
    "SearchSpace",
    "SearchState",
    "Supernet",
    "darts",
    "init_search",
    "search_epoch",
    "search_step",
]
