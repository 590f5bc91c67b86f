"""The claims by name, and a function that checks one.

For example:

    from prdarts_jax.theory import claims, settings
    report = claims.check("theorem4_depth", seed=0, settings=settings.QUICK)
"""

from collections.abc import Callable, Mapping

import jax

from prdarts_jax.theory import alignment, theorem1, theorem2, theorem3, theorem4
from prdarts_jax.theory.report import ClaimReport
from prdarts_jax.theory.settings import Settings

NAMED: Mapping[str, Callable[[jax.Array, Settings], ClaimReport]] = {
    "theorem1_descent": theorem1.descent,
    "theorem1_gram": theorem1.gram_bound,
    "theorem1_weights": theorem1.weights,
    "theorem2_gates": theorem2.gates_raised,
    "theorem3_distribution": theorem3.distribution,
    "theorem3_gradient": theorem3.gradient,
    "theorem4_depth": theorem4.depth,
    "lambda_alignment": alignment.alignment,
}


def check(name: str, seed: int, settings: Settings) -> ClaimReport:
    """Checks one claim in float64, which JAX has enabled only during the check.

    Args:
      name: a key of `NAMED`.
      seed: the only source of randomness.
      settings: sizes of the networks and numbers of draws, such as `settings.QUICK`.

    Returns:
      The findings, with a verdict on each; see `report.ClaimReport`.

    Raises:
      KeyError: there is no such claim.
    """
    with jax.enable_x64(True):
        return NAMED[name](jax.random.key(seed), settings)
