"""A search on a part of ImageNet, streamed from disk, like that of PC-DARTS (Xu et al., ICLR 2020, section 4.3): three
convolutions of stride 2, eight cells of 16 channels, 10 % of the images for the weights and 2.5 % for the logits, which
are trained from epoch 35 of 50 on.

The numbers are those of the paper and its released code: batch size 1024, learning rate 0.5 after a warm-up of five
epochs and 0.006 for the logits, half of the channels. The paper's search took 3.8 days on a V100, and its cell has
24.2 % top-1 error. Not run here at this size. A folder with ImageNet's class folders works as well:
--config.dataset=FOLDER --config.memory=0.

    python -m prdarts_jax.main --config=configs/imagenet.py --workdir=runs/imagenet --config.data_dir=DIR
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.search("pc_darts")
    config.dataset = "imagenet"
    config.form = "imagenet"
    config.image_size = 224
    config.weights_share = 0.1
    config.logits_share = 0.025
    config.batch_size = 1024
    config.logits.learning_rate = 0.006
    config.logits.start = 0.7
    config.pc_darts.partial = 2
    config.weights.learning_rate = 0.5
    config.weights.warmup_epochs = 5
    return config
