"""Does the Gram matrix of a real cell at its start predict how fast it trains, and how good it is?

Cells of NAS-Bench-201, drawn at random from all 15,625, in a small network (C = 8, one cell per stage, CIFAR-10
averaged down to 16x16). Of each: the Gram matrix of 24 outputs at the start, one random direction in the logits per
image (`theory.gram.of`), with ln lambda_min / lambda_max (conditioning) and ln of its mean eigenvalue (size); the
training loss after 60 steps of SGD (batch 32, learning rate 0.05, momentum 0.9), the mean of the last ten; the share of
edges that are skip connections; and the benchmark's own test accuracy. Cells whose output does not depend on their
input train only what is behind them; they count as all others.

    python experiments/gram_nasbench201.py --data_dir=DIR --table=FILE --workdir=runs/gram_nasbench201

A cell takes seconds; the script may be stopped and started again. It writes config.json, cells.csv, table.md with the
rank correlations, and gram.png.
"""

import argparse
import csv
from pathlib import Path

import family
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from prdarts_jax import markdown, spaces
from prdarts_jax.data import sources
from prdarts_jax.data.augmentation import Augmentation, augment
from prdarts_jax.nets import discrete
from prdarts_jax.nets.nas_bench_201 import Supernet201
from prdarts_jax.run import checkpoints
from prdarts_jax.spaces import tabular
from prdarts_jax.theory import findings, gram

SPACE = spaces.nas_bench_201()
FIELDS = ("cell", "conditioning", "size", "skips", "loss", "accuracy")
PAIRS = (
    ("conditioning", "speed"),
    ("size", "speed"),
    ("conditioning", "accuracy"),
    ("size", "accuracy"),
    ("speed", "accuracy"),
    ("skips", "conditioning"),
    ("skips", "speed"),
    ("skips", "accuracy"),
)
OUTPUTS, BATCH = 24, 32


def draw_cells(count: int) -> list[tuple[int, ...]]:
    """The indices of the ops of `count` different cells, the same first ones for every count."""
    shape = (SPACE.shape[1],) * SPACE.shape[0]
    chosen = np.random.default_rng(0).permutation(int(np.prod(shape)))[:count]
    return [tuple(map(int, cell)) for cell in np.stack(np.unravel_index(chosen, shape), axis=1)]


def load_images(dataset: str, data_dir: str, image_size: int) -> tuple[jax.Array, jax.Array]:
    """(images, normalised; labels) of 640 training examples.

    Raises:
      FileNotFoundError, ValueError: the data cannot be loaded.
    """
    data = sources.load(dataset, data_dir, image_size=image_size, num_examples=640)
    plain = Augmentation(*sources.statistics(data), 0, flip=False, cutout=0)
    return augment(plain, jax.random.key(0), data.images), jnp.asarray(data.labels)


def make_measure(images: jax.Array, labels: jax.Array, steps: int, channels: int):
    """A compiled function: op weights f32[layers, edges, ops] -> (Gram matrix, training losses f32[steps])."""
    network = Supernet201(space=SPACE, channels=channels, cells=1)
    variables = discrete.init_variables(network, jax.random.key(0), (1, *images.shape[1:]))
    direction = jax.random.normal(jax.random.key(1), (10,)) / 10**0.5
    optimizer = optax.sgd(0.05, momentum=0.9)
    order = jax.random.randint(jax.random.key(2), (steps, BATCH), 0, len(images))

    def logits(params, images, weights):
        return network.apply(variables | {"params": params}, images, {"normal": weights}, train=True)

    def loss(params, batch, weights):
        return optax.softmax_cross_entropy_with_integer_labels(
            logits(params, images[batch], weights), labels[batch]
        ).mean()

    @jax.jit
    def measure(weights):
        def step(carry, batch):
            params, state = carry
            value, slope = jax.value_and_grad(loss)(params, batch, weights)
            updates, state = optimizer.update(slope, state)
            return (optax.apply_updates(params, updates), state), value

        params = variables["params"]
        matrix = gram.of(lambda params, x: logits(params, x, weights) @ direction, params, images[:OUTPUTS])["all"]
        return matrix, jax.lax.scan(step, (params, optimizer.init(params)), order)[1]

    return measure


def row(cell: tuple[int, ...], matrix: np.ndarray, losses: np.ndarray, table: tabular.Table) -> dict[str, object]:
    """The measurements of a cell."""
    eigenvalues = np.linalg.eigvalsh(np.asarray(matrix, np.float64))
    return {
        "cell": "".join(map(str, cell)),
        "conditioning": float(np.log(max(eigenvalues[0] / eigenvalues[-1], 1e-8))),  # float32 resolves no more
        "size": float(np.log(eigenvalues.mean())),
        "skips": float(np.mean([SPACE.ops[op] == "skip_connect" for op in cell])),
        "loss": float(losses[-10:].mean()),
        "accuracy": float(table.accuracies[cell]),
    }


def columns(rows: list[dict[str, object]]) -> dict[str, np.ndarray]:
    """{name: f[cells]}; speed is minus the loss."""
    found = {name: np.array([float(of[name]) for of in rows]) for name in FIELDS[1:]}
    return found | {"speed": -found["loss"]}


def make_table(found: dict[str, np.ndarray]) -> str:
    """The rank correlations, with intervals of 95 %."""
    rows = []
    for first, second in PAIRS:
        value = findings.correlation_above(found[first], found[second], level=findings.LEVEL)
        rows.append([f"{first}, {second}", f"{value.measured:.2f} ({value.low:.2f} to {value.high:.2f})"])
    return markdown.table([f"of {len(found['speed'])} cells", "rank correlation (95 %)"], rows)


def draw(found: dict[str, np.ndarray]) -> Figure:
    """Conditioning against speed and accuracy, coloured by the share of skip connections."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, name, label in zip(
        panels, ("speed", "accuracy"), ("minus the training loss", "true test accuracy, %"), strict=True
    ):
        points = panel.scatter(found["conditioning"], found[name], c=found["skips"], s=14)
        panel.set(xlabel="ln lambda_min / lambda_max at the start", ylabel=label)
    figure.colorbar(points, label="share of skip connections")
    return figure


def main() -> None:
    """Measures the missing cells, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", default="", help="where TFDS keeps cifar10")
    parser.add_argument("--dataset", default="cifar10", help="another data set of ten classes")
    parser.add_argument("--table", required=True, help="NAS-Bench-201's accuracies, see prdarts_jax/spaces/tabular.py")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the results")
    parser.add_argument("--cells", type=int, default=120, help="number of cells")
    parser.add_argument("--steps", type=int, default=60, help="of the training")
    parser.add_argument("--image_size", type=int, default=16, help="side in pixels")
    parser.add_argument("--channels", type=int, default=8, help="C")
    arguments = parser.parse_args()
    family.use_compilation_cache(arguments.workdir)
    with family.exit_if_refused():
        table = tabular.load(arguments.table, arguments.dataset)
        fields = {name: vars(arguments)[name] for name in ("dataset", "steps", "image_size", "channels")}
        fields["accuracies"] = checkpoints.fingerprint(table.accuracies)
        family.check_results(arguments.workdir / "cells.csv", fields)
        images, labels = load_images(arguments.dataset, arguments.data_dir, arguments.image_size)
    measure = make_measure(images, labels, arguments.steps, arguments.channels)
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    checkpoints.write_config(arguments.workdir, fields)
    path = arguments.workdir / "cells.csv"
    done = list(csv.DictReader(path.open())) if path.exists() else []
    known = {of["cell"] for of in done}
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not done:
            writer.writeheader()
        for number, cell in enumerate(draw_cells(arguments.cells)):
            if "".join(map(str, cell)) in known:
                continue
            weights = jnp.broadcast_to(jax.nn.one_hot(jnp.array(cell), SPACE.shape[1]), (3, *SPACE.shape))
            done.append(row(cell, *jax.device_get(measure(weights)), table))
            writer.writerow(done[-1])
            file.flush()
            print(f"cell {number + 1} of {arguments.cells}", flush=True)
    found = columns(done)
    text = make_table(found)
    (arguments.workdir / "table.md").write_text(text)
    draw(found).savefig(arguments.workdir / "gram.png")
    print(text)


if __name__ == "__main__":
    main()
