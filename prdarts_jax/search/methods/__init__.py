"""The named methods: functions with keyword arguments that return a `Method`, one file each.

To add a method, add it to the list below; it is the only place that lists the names.
"""

from collections.abc import Mapping
from types import MappingProxyType

from prdarts_jax.refusals import near, shown
from prdarts_jax.search.methods import composed
from prdarts_jax.search.methods.beta_darts import beta_darts
from prdarts_jax.search.methods.darts import darts
from prdarts_jax.search.methods.darts_minus import darts_minus
from prdarts_jax.search.methods.drnas import drnas
from prdarts_jax.search.methods.fair_darts import fair_darts
from prdarts_jax.search.methods.gdas import gdas
from prdarts_jax.search.methods.idarts import idarts
from prdarts_jax.search.methods.lambda_darts import lambda_darts
from prdarts_jax.search.methods.named import Named, imported, named
from prdarts_jax.search.methods.oles import oles
from prdarts_jax.search.methods.p_darts import p_darts
from prdarts_jax.search.methods.pc_darts import pc_darts
from prdarts_jax.search.methods.pr_darts import pr_darts, pr_darts_gates, pr_darts_path, pr_darts_released
from prdarts_jax.search.methods.r_darts import r_darts
from prdarts_jax.search.methods.random_search import random_search
from prdarts_jax.search.methods.reinforce import reinforce
from prdarts_jax.search.methods.reinmax import reinmax
from prdarts_jax.search.methods.sdarts import sdarts_adv, sdarts_rs
from prdarts_jax.search.methods.snas import snas

_ALL = (
    pr_darts,
    pr_darts_released,
    pr_darts_gates,
    pr_darts_path,
    darts,
    idarts,
    lambda_darts,
    fair_darts,
    p_darts,
    r_darts,
    pc_darts,
    sdarts_rs,
    sdarts_adv,
    darts_minus,
    beta_darts,
    oles,
    drnas,
    snas,
    gdas,
    reinmax,
    random_search,
    reinforce,
)
NAMED: Mapping[str, Named] = MappingProxyType({method.name: method for method in _ALL})


def find(name: str) -> Named:
    """Finds a method by its name in a config: a key of `NAMED`, 'module:function' or 'file.py:function', where it may
    also be a `Method` in place of a function, or 'file.toml' (see `composed.py`).

    Raises:
      ValueError, OSError: there is no method of that name.
    """
    if not isinstance(name, str):
        raise ValueError(f"method={shown(name)} must be a name, such as 'darts' or 'MODULE:FUNCTION'")
    if name.endswith(".toml"):
        return composed.read(name)
    if ":" in name:
        return imported(name)
    if name not in NAMED:
        own = f"or MODULE:FUNCTION, FILE.py:FUNCTION or FILE.toml of your own{near(name, NAMED)}"
        raise ValueError(f"method={shown(name)} must be one of {', '.join(NAMED)}, {own}")
    return NAMED[name]


__all__ = ["NAMED", "Named", "find", "named", *NAMED]
