"""A numerical check of the convergence claims of PR-DARTS and Lambda-DARTS.

--config.claim=theorem4_constants checks one claim. --config.sizes='width = [256], activation = ["tanh"]' has other
sizes, and --config.claims=FILE.toml other claims. --config.thorough=True takes all sizes of the file of claims;
experiments/theory.md has its results.

    python -m prdarts_jax.main --config=configs/theory.py --workdir=runs/theory
"""

from ml_collections import ConfigDict

from prdarts_jax.theory import job


def get_config() -> ConfigDict:
    """The settings."""
    return job.settings()
