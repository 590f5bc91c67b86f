r"""The training of a found cell from scratch on CIFAR-10, as in PR-DARTS's code: 20 cells, 36 channels, 600 epochs.

The paper's cell has 2.32 % error with these settings (3.4 million weights). Not run here at this size: two CPU cores
would take months.

    python -m prdarts_jax.main --config=configs/cifar10_eval.py --workdir=runs/cifar10_eval \
        --config.genotype=runs/cifar10/genotype.json

DARTS's own evaluation has `--config.batch_size=96 --config.drop_path=0.2 --config.auxiliary_weight=0.4`.

To test the authors' checkpoint instead of training (this needs PyTorch: `pip install torch`):

    python -m prdarts_jax.main --config=configs/cifar10_eval.py --workdir=runs/cifar10_theirs --config.epochs=0 \
        --config.torch_checkpoint=CIFAR10_model.pt
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    return settings.training()
