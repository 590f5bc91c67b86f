r"""The training of a found cell from scratch on images of your own: its network is the one to use.

Set FOLDER and the fields of the images as for configs/images.py; then the search has not seen the test images.

    python -m prdarts_jax.main --config=configs/images_eval.py --workdir=runs/images_eval --config.dataset=FOLDER \
        --config.genotype=runs/images/genotype.json
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.training()
    config.dataset = "images"
    config.image_size = 32
    config.channels = 16
    config.cells = 5
    config.drop_path = 0.0
    config.epochs = 60
    config.batch_size = 16
    config.augmentation.cutout = 8
    return config
