"""The convergence claims of PR-DARTS and Lambda-DARTS, checked with numbers.

One claim: --config.claim=theorem4_depth; widths up to 4096 and more draws: --config.thorough=True. What was found:
experiments/theory.md.

    python -m prdarts_jax.main --config=configs/theory.py --workdir=runs/theory
"""

from ml_collections import ConfigDict

from prdarts_jax import settings


def get_config() -> ConfigDict:
    """The settings."""
    return settings.theory()
