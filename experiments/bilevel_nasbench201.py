"""Which op weights grow in a real search, and do they grow because they make the network fast?

PR-DARTS's analysis says that DARTS prefers skip connections since they raise the speed of convergence, and that gates
with terms break this link. Here DARTS and PR-DARTS search NAS-Bench-201's space (the searches of gate_sparsity.py:
6,400 images of CIFAR-10 at 16x16, 8 epochs). The growth of an op on an edge is its logit after the search minus the
mean of its edge. The gain of the op is the change of ln lambda_min / lambda_max of the Gram matrix of 24 outputs
(`theory.gram.of`), or of the mean eigenvalue (size), if its op weight in all cells is raised by 0.1 from equal op
weights of 1/5, at the start, averaged over three draws of the weights. The link is the rank correlation of growth and
gain over the 30 pairs of an edge and an op.

    python experiments/bilevel_nasbench201.py --data_dir=DIR --workdir=runs/bilevel_nasbench201

A search takes about a minute, the gains two; the script may be stopped and started again. It writes config.json,
gains.npz, a run folder for each search, and table.md.
"""

import argparse
import io

import family
import jax
import jax.numpy as jnp
import kept
import numpy as np
from gate_sparsity import make_config
from gram_nasbench201 import OUTPUTS, SPACE, load_images
from scipy import stats

from prdarts_jax import markdown
from prdarts_jax.nets import discrete
from prdarts_jax.nets.nas_bench_201 import Supernet201
from prdarts_jax.run import checkpoints, reporting
from prdarts_jax.theory import findings, gram

METHODS = ("darts", "pr_darts")
RAISE = 0.1


def measure_gains(images: jax.Array, channels: int, draws: int) -> dict[str, np.ndarray]:
    """{quantity: f[edges, ops]}: the mean derivative over the draws of weights."""
    network = Supernet201(space=SPACE, channels=channels, cells=1)
    direction = jax.random.normal(jax.random.key(1), (10,)) / 10**0.5

    @jax.jit
    def matrix(variables, weights):
        def outputs(params, images):
            layers = {"normal": jnp.broadcast_to(weights, (3, *SPACE.shape))}
            return network.apply(variables | {"params": params}, images, layers, train=True) @ direction

        return gram.of(outputs, variables["params"], images[:OUTPUTS])["all"]

    def quantities(variables, weights):
        eigenvalues = np.linalg.eigvalsh(np.asarray(matrix(variables, weights), np.float64))
        return np.log([max(eigenvalues[0] / eigenvalues[-1], 1e-8), eigenvalues.mean()])

    equal, gains = np.full(SPACE.shape, 1 / SPACE.shape[1], np.float32), np.zeros((2, *SPACE.shape))
    for draw in range(draws):
        variables = discrete.init_variables(network, jax.random.key(draw), (1, *images.shape[1:]))
        start = quantities(variables, equal)
        for place in np.ndindex(SPACE.shape):
            raised = equal.copy()
            raised[place] += RAISE
            gains[:, *place] += (quantities(variables, raised) - start) / RAISE / draws
    return dict(zip(("conditioning", "size"), gains, strict=True))


def growth(search: kept.Search) -> np.ndarray:
    """The logits after a search, less the mean of their edge: f[edges, ops]."""
    logits = np.array(search.logits["normal"])
    return logits - logits.mean(axis=1, keepdims=True)


def make_table(gains: dict[str, np.ndarray], grown: dict[str, list[np.ndarray]]) -> str:
    """For each method the growth of skip connections, and the link to each gain: means over seeds with 95 %."""
    skip = SPACE.ops.index("skip_connect")
    rows = []
    for method, runs in grown.items():
        values = [np.array([run[:, skip].mean() for run in runs])]
        for gain in gains.values():
            values.append(np.array([stats.spearmanr(run.ravel(), gain.ravel()).statistic for run in runs]))
        found = [findings.mean_above(value, level=findings.LEVEL) for value in values]
        rows.append([method, *(f"{of.measured:+.3f} ({of.low:.3f} to {of.high:.3f})" for of in found)])
    means = [f"{gain[:, skip].mean():+.2f} (mean of all ops {gain.mean():+.2f})" for gain in gains.values()]
    rows.append(["gain of skip connections", "", *means])
    return markdown.table(["method", "growth of skip connections", *(f"link to {name}" for name in gains)], rows)


def main() -> None:
    """Makes the missing measurements and searches, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    family.add_arguments(parser)
    parser.add_argument("--draws", type=int, default=3, help="of weights, for the gains")
    arguments = parser.parse_args()
    family.use_compilation_cache(arguments.workdir)
    with family.exit_if_refused():
        config = family.with_fields(make_config(arguments.data_dir), family.parse_fields(arguments.set))
        path, fields = arguments.workdir / "gains.npz", {"draws": arguments.draws}
        fields |= {name: config[name] for name in ("dataset", "image_size", "channels")}
        family.check_results(path, fields)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            images, _ = load_images(config.dataset, config.data_dir, config.image_size)
            checkpoints.write_config(arguments.workdir, fields)
            content = io.BytesIO()
            np.savez(content, **measure_gains(images, config.channels, arguments.draws))
            reporting.write_bytes(path, content.getvalue())
        gains = dict(np.load(path))
        results = family.run(config, METHODS, arguments.workdir, arguments.seeds)
    grown = {method: [growth(search) for search in family.of(results, method)] for method in METHODS}
    text = make_table(gains, {method: runs for method, runs in grown.items() if runs})
    (arguments.workdir / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
