"""Networks: the executor of a cell, the supernets, the discrete networks, and their sizes and costs."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from prdarts_jax.nets import costs
from prdarts_jax.nets.nas_bench_201 import Supernet201
from prdarts_jax.nets.supernet import Macro, Supernet
from prdarts_jax.spaces import SearchSpace

__all__ = ["MACROS", "costs", "supernet_of"]

# The supernets by the name that `SearchSpace.macro` has for them.
MACROS: Mapping[str, type[Macro]] = MappingProxyType({"darts": Supernet, "nas_bench_201": Supernet201})


def supernet_of(space: SearchSpace, **fields: Any) -> Macro:
    """Makes the supernet that `space.macro` names.

    Args:
      space: the search space.
      **fields: fields of supernets by name. Those that only other supernets have are ignored.

    Raises:
      ValueError: there is no supernet of that name, the cells of the space do not fit into it, or no supernet has one
        of the fields.
    """
    if space.macro not in MACROS:
        raise ValueError(f"space.macro={space.macro!r} must be one of {', '.join(MACROS)}")
    known = {name: {field.name for field in dataclasses.fields(macro)} for name, macro in MACROS.items()}
    if unknown := fields.keys() - set().union(*known.values()):
        raise ValueError(f"fields {', '.join(sorted(unknown))} must be of a supernet, but no supernet has them")
    own = {field: value for field, value in fields.items() if field in known[space.macro]}
    return MACROS[space.macro](space=space, **own)
