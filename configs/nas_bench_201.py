"""A search on CIFAR-10 in NAS-Bench-201 with the benchmark's settings (Dong, Yang, ICLR 2020): first order DARTS unless
a method is named.

DARTS is known to end in skip connections alone, whose test accuracy is 54.30 %. With --config.table=FILE the true
accuracy of each epoch's cell is reported. Not yet run here over all its epochs; experiments/compare_nasbench201.py does
this at a scale for two cores.

    python -m prdarts_jax.main --config=configs/nas_bench_201.py --workdir=runs/nas_bench_201
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config(method: str = "darts") -> ConfigDict:
    """DARTS's settings, with those of the benchmark, for any method."""
    config = settings.search("darts")
    config.method = method
    config.space = "nas_bench_201"
    config.cells = 5  # of each of the three stages
    config.weights.nesterov = True
    config.weights.weight_decay = 5e-4
    return config
