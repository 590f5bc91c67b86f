"""Differentiable architecture search as pure functions: PR-DARTS, DARTS and their bilevel step in JAX."""

from prdarts_jax.bilevel import SearchProblem, SearchState, init_search, search_epoch, search_step
from prdarts_jax.data import Augmentation
from prdarts_jax.genotypes import Genotype
from prdarts_jax.methods import Darts, Method, PRDarts
from prdarts_jax.networks import Network, describe, network
from prdarts_jax.spaces import SearchSpace, darts
from prdarts_jax.supernet import Supernet
from prdarts_jax.training import TrainProblem, TrainState, init_training, train_epoch, train_step

__all__ = [
    "Augmentation",
    "Darts",
    "Genotype",
    "Method",
    "Network",
    "PRDarts",
    "SearchProblem",
    "SearchSpace",
    "SearchState",
    "Supernet",
    "TrainProblem",
    "TrainState",
    "darts",
    "describe",
    "init_search",
    "init_training",
    "network",
    "search_epoch",
    "search_step",
    "train_epoch",
    "train_step",
]
