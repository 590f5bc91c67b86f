"""P-DARTS on CIFAR-10 with the settings of its paper (Chen et al., ICCV 2019, section 4.2): three stages of 25 epochs.

The cell of that paper, PDARTS, has 2.50 % error on CIFAR-10; its search took 0.3 days. Not yet run here over all its
epochs.

    python -m prdarts_jax.main --config=configs/p_darts_cifar10.py --workdir=runs/p_darts_cifar10
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.defaults()
    config.method = "p_darts"
    config.epochs = 25  # of each stage
    config.batch_size = 96
    config.augmentation.cutout = 0
    config.logits.learning_rate = 6e-4
    return config
