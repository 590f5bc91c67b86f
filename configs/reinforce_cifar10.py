"""A REINFORCE controller on CIFAR-10, in DARTS's space with its settings; the logits move ten times as fast.

No published result: the ancestor that the others are compared with. Not yet run here over all its epochs.

    python -m prdarts_jax.main --config=configs/reinforce_cifar10.py --workdir=runs/reinforce_cifar10
"""

from ml_collections import ConfigDict

from prdarts_jax import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.defaults()
    config.method = "reinforce"
    config.epochs = 50
    config.batch_size = 64
    config.augmentation.cutout = 0
    config.weights.end_learning_rate = 0.001
    config.logits.learning_rate = 3e-3
    return config
