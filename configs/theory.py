"""A numerical check of the convergence claims of PR-DARTS and Lambda-DARTS.

It takes four minutes on two CPU cores, compilation included. --config.claim=theorem4_depth checks one claim.
--config.thorough=True has more draws and widths up to 4096, and takes 36 minutes and 15 GB; experiments/theory.md has
its results.

    python -m prdarts_jax.main --config=configs/theory.py --workdir=runs/theory
"""

from ml_collections import ConfigDict

from prdarts_jax.theory import job


def get_config() -> ConfigDict:
    """The settings."""
    return job.settings()
