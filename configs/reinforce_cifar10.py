"""A REINFORCE controller on CIFAR-10, in DARTS's space with its settings; the logits move ten times as fast.

No published result: the ancestor that the others are compared with. Not yet run here over all its epochs.

    python -m prdarts_jax.main --config=configs/reinforce_cifar10.py --workdir=runs/reinforce_cifar10
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.darts()
    config.method = "reinforce"
    config.logits.learning_rate = 3e-3
    return config
