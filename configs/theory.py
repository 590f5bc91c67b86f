"""The convergence claims of PR-DARTS and Lambda-DARTS, checked with numbers.

Four minutes on two CPU cores, compilation included. One claim: --config.claim=theorem4_depth. With
--config.thorough=True, more draws and widths up to 4096, 36 minutes and 15 GB: the results in experiments/theory.md.

    python -m prdarts_jax.main --config=configs/theory.py --workdir=runs/theory
"""

from ml_collections import ConfigDict

from prdarts_jax.theory import job


def get_config() -> ConfigDict:
    """The settings."""
    return job.settings()
