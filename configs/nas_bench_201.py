"""First order DARTS on CIFAR-10 in NAS-Bench-201 with the benchmark's settings (Dong, Yang, ICLR 2020).

Known to end in skip connections alone, whose test accuracy is 54.30 %. Another method: --config.method=pr_darts; the
true accuracy of each epoch's cell: --config.table=FILE. Not yet run here over all its epochs. At a scale that two
cores can do: experiments/compare_nasbench201.py.

    python -m prdarts_jax.main --config=configs/nas_bench_201.py --workdir=runs/nas_bench_201
"""

from ml_collections import ConfigDict

from prdarts_jax.run import settings


def get_config() -> ConfigDict:
    """The settings."""
    config = settings.darts()
    config.space = "nas_bench_201"
    config.cells = 5  # of each of the three stages
    config.weights.nesterov = True
    config.weights.weight_decay = 5e-4
    return config
