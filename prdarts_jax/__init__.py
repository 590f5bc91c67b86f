"""Differentiable architecture search as pure functions: PR-DARTS, DARTS and their relatives, and their bilevel step."""

from prdarts_jax import data, ops, spaces
from prdarts_jax.data.augmentation import Augmentation
from prdarts_jax.evaluation.training import TrainProblem, TrainState, init_training, train_epoch, train_step
from prdarts_jax.nets import costs
from prdarts_jax.nets.discrete import DiscreteNetwork, network
from prdarts_jax.nets.nas_bench_201 import Supernet201
from prdarts_jax.nets.sizes import describe
from prdarts_jax.nets.supernet import Supernet
from prdarts_jax.run.evaluate import evaluate
from prdarts_jax.run.finished import load
from prdarts_jax.search import alignment, methods, relaxations, schedules, terms
from prdarts_jax.search.curvature import EarlyStopping
from prdarts_jax.search.method import Method, Stage
from prdarts_jax.search.perturbation import Perturbation
from prdarts_jax.search.selection import BestCell, BestOf
from prdarts_jax.search.step import SearchProblem, SearchState, init_search, search_epoch, search_step
from prdarts_jax.spaces import SearchSpace, discretizations, genotypes
from prdarts_jax.spaces.genotypes import EdgeGenotype, Genotype

__all__ = [
    "Augmentation",
    "BestCell",
    "BestOf",
    "DiscreteNetwork",
    "EarlyStopping",
    "EdgeGenotype",
    "Genotype",
    "Method",
    "Perturbation",
    "SearchProblem",
    "SearchSpace",
    "SearchState",
    "Stage",
    "Supernet",
    "Supernet201",
    "TrainProblem",
    "TrainState",
    "alignment",
    "costs",
    "data",
    "describe",
    "discretizations",
    "evaluate",
    "genotypes",
    "init_search",
    "init_training",
    "load",
    "methods",
    "network",
    "ops",
    "relaxations",
    "schedules",
    "search_epoch",
    "search_step",
    "spaces",
    "terms",
    "train_epoch",
    "train_step",
]
