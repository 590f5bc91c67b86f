"""The training of a cell of NAS-Bench-201 on CIFAR-10, as in the benchmark (Dong, Yang, ICLR 2020, table 1): three
stages of five cells, 16 channels, 200 epochs. Not run here at this size.

The default cell is that of a residual network, which has 93.97 % in the benchmark.

    python -m prdarts_jax.main --config=configs/nas_bench_201_eval.py --workdir=runs/nas_bench_201_eval \
        --config.genotype=runs/nas_bench_201/genotype.json
"""

import math

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.training()
    config.genotype = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
    config.channels = 16
    config.cells = 5  # of each of the three stages
    config.epochs = 200
    config.batch_size = 256
    config.drop_path = 0.0
    config.augmentation.cutout = 0
    config.weights.learning_rate = 0.1
    config.weights.clip = math.inf
    config.weights.nesterov = True
    config.weights.weight_decay = 5e-4
    return config
