# What `prdarts_jax` offers, and where it is: `__init__.py` imports a name when it is first used.

from . import data, ops, spaces
from .data.augmentation import Augmentation
from .evaluation.training import TrainProblem, TrainState, init_training, train_epoch, train_step
from .nets import costs
from .nets.discrete import DiscreteNetwork, network
from .nets.nas_bench_201 import Supernet201
from .nets.sizes import describe
from .nets.supernet import Supernet
from .run.evaluate import evaluate
from .run.finished import load
from .search import alignment, hypergradients, methods, relaxations, schedules, smoothing, terms
from .search.curvature import EarlyStopping
from .search.freezing import OperationEarlyStopping
from .search.method import Method, Stage
from .search.perturbation import Perturbation
from .search.problem import SearchProblem, SearchState, init_search
from .search.pruning import Pruning
from .search.selection import BestCell, BestOf
from .search.step import search_epoch, search_step
from .spaces import SearchSpace, discretizations, genotypes
from .spaces.genotypes import EdgeGenotype, Genotype

__all__ = [
    "Augmentation",
    "BestCell",
    "BestOf",
    "DiscreteNetwork",
    "EarlyStopping",
    "EdgeGenotype",
    "Genotype",
    "Method",
    "OperationEarlyStopping",
    "Perturbation",
    "Pruning",
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
    "hypergradients",
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
    "smoothing",
    "spaces",
    "terms",
    "train_epoch",
    "train_step",
]
