"""Differentiable architecture search as pure functions: PR-DARTS, DARTS and their relatives, and their bilevel step."""

from prdarts_jax.data.sources import Augmentation
from prdarts_jax.evaluation.training import TrainProblem, TrainState, init_training, train_epoch, train_step
from prdarts_jax.nets.discrete import DiscreteNetwork, network
from prdarts_jax.nets.nas_bench_201 import Supernet201
from prdarts_jax.nets.sizes import describe
from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.search.methods import (
    Darts,
    FairDarts,
    Gdas,
    LambdaDarts,
    Method,
    PCDarts,
    PDarts,
    PRDarts,
    RandomSearch,
    RDarts,
    Reinforce,
)
from prdarts_jax.search.step import SearchProblem, SearchState, init_search, search_epoch, search_step
from prdarts_jax.spaces import SearchSpace, darts
from prdarts_jax.spaces.genotypes import EdgeGenotype, Genotype

__all__ = [
    "Augmentation",
    "Darts",
    "DiscreteNetwork",
    "EdgeGenotype",
    "FairDarts",
    "Gdas",
    "Genotype",
    "LambdaDarts",
    "Method",
    "PCDarts",
    "PDarts",
    "PRDarts",
    "RDarts",
    "RandomSearch",
    "Reinforce",
    "SearchProblem",
    "SearchSpace",
    "SearchState",
    "Supernet",
    "Supernet201",
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
