"""Search methods, one file each, all behind the interface `Method`."""

from collections.abc import Mapping
from types import MappingProxyType

from prdarts_jax.search.methods.base import Method, Stage, fields_of
from prdarts_jax.search.methods.darts import Darts
from prdarts_jax.search.methods.fair_darts import FairDarts
from prdarts_jax.search.methods.gdas import Gdas
from prdarts_jax.search.methods.lambda_darts import LambdaDarts
from prdarts_jax.search.methods.p_darts import PDarts
from prdarts_jax.search.methods.pc_darts import PCDarts
from prdarts_jax.search.methods.pr_darts import PRDarts
from prdarts_jax.search.methods.r_darts import RDarts
from prdarts_jax.search.methods.random_search import RandomSearch
from prdarts_jax.search.methods.reinforce import Reinforce

# As configs call them.
NAMED: Mapping[str, type[Method]] = MappingProxyType(
    {
        "pr_darts": PRDarts,
        "darts": Darts,
        "lambda_darts": LambdaDarts,
        "fair_darts": FairDarts,
        "p_darts": PDarts,
        "r_darts": RDarts,
        "pc_darts": PCDarts,
        "gdas": Gdas,
        "random_search": RandomSearch,
        "reinforce": Reinforce,
    }
)

__all__ = [
    "NAMED",
    "Darts",
    "FairDarts",
    "Gdas",
    "LambdaDarts",
    "Method",
    "PCDarts",
    "PDarts",
    "PRDarts",
    "RDarts",
    "RandomSearch",
    "Reinforce",
    "Stage",
    "fields_of",
]
