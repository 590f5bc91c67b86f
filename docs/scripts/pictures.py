"""The three pictures of the page on concepts, as SVG. What they show is computed by the package."""

import io

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import prdarts_jax as pdx
from prdarts_jax.nets.program import instructions, program
from prdarts_jax.run.plots import COLOURS

_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def _svg(figure):
    file = io.StringIO()
    figure.savefig(file, format="svg")
    return file.getvalue()


def _colours():
    return [COLOURS[pdx.ops.group(op)] for op in _OPS]


def op_weights() -> str:
    """The weights that four relaxations give to the same logits of one edge."""
    space = pdx.SearchSpace("edge", _OPS, 2, 1, ("normal",), entries_per_node=0)
    logits = {"normal": jnp.array([[-1.0, 1.5, 0.3, 1.0, -0.4]])}
    shown = {
        "Softmax (DARTS):\nall ops run and compete": pdx.relaxations.Softmax(),
        "Sigmoid (Fair DARTS):\nall ops run": pdx.relaxations.Sigmoid(),
        "Gates (PR-DARTS):\ntwo drawn ops run": pdx.relaxations.HardConcrete(),
        "Gumbel softmax (GDAS):\none drawn op runs": pdx.relaxations.Gumbel(),
    }
    figure = Figure(figsize=(8, 6), layout="constrained")
    for place, (title, relaxation) in enumerate(shown.items()):
        axes = figure.add_subplot(2, 2, place + 1)
        weights = relaxation.weigh(space, logits, jax.random.key(3), jnp.float32(0.9))["normal"][0]
        axes.bar(range(len(_OPS)), np.asarray(weights), color=_colours())
        axes.set_title(title, fontsize=12)
        axes.set_ylim(0, 1.05)
        axes.set_xticks(range(len(_OPS)), _OPS, rotation=30, ha="right", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel("op weight")
    return _svg(figure)


def cell_program() -> str:
    """A cell with some gates closed, beside the program that the supernet runs for it."""
    space = pdx.spaces.nas_bench_201()
    (_, group), *_ = program(space, False, channels=2)
    weights = np.zeros(space.shape, np.float32)
    for edge, op, weight in ((0, 3, 0.9), (1, 1, 0.4), (2, 2, 0.7), (3, 3, 0.3), (5, 1, 0.8), (5, 3, 0.6)):
        weights[edge, op] = weight
    run = instructions(group, jnp.asarray(weights), 1)
    table, scales = np.asarray(run.table), np.asarray(run.weights)

    figure = Figure(figsize=(10, 3.6))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 10), ylim=(0, 3.6))
    axes.set_axis_off()
    nodes = np.array([[0.6, 1.8], [2.0, 2.9], [3.3, 1.0], [4.9, 1.8]])
    for edge, (source, target) in enumerate(space.edges):
        chosen = np.flatnonzero(weights[edge])
        for number, op in enumerate(chosen if len(chosen) else [0]):
            bend = 0.35 * (2 * number - len(chosen) + 1) if len(chosen) > 1 else 0.0
            style = {"color": _colours()[op], "lw": 1 + 3 * weights[edge, op]} if len(chosen) else {"color": "0.8"}
            arrow = {"arrowstyle": "-|>", "mutation_scale": 14, "shrinkA": 16, "shrinkB": 16}
            line = "-" if len(chosen) else ":"
            axes.add_patch(
                FancyArrowPatch(
                    nodes[source], nodes[target], connectionstyle=f"arc3,rad={bend}", ls=line, **style, **arrow
                )
            )
    for number, place in enumerate(nodes):
        axes.plot(*place, "o", ms=24, color="#9CCBEE", mec="0.3")
        axes.text(*place, str(number), ha="center", va="center", fontsize=11)
    key = "blue: convolution, orange: skip connection, dotted: all gates closed"
    axes.text(2.7, 0.2, key, ha="center", fontsize=10, color="0.4")
    head = f"{'source':>6} {'target':>6}  {'op':<13} {'weight':>6}"
    lines = [
        f"{source:>6} {target:>6}  {space.ops[group.columns[op]]:<13} {scale:>6.1f}"
        for (source, target, _, op, _), scale in zip(table[: int(run.starts[-1])], scales, strict=False)
    ]
    axes.text(5.4, 3.1, "The program: six instructions", fontsize=13, va="center")
    axes.text(5.4, 2.75, "\n".join([head, *lines]), family="monospace", fontsize=12, va="top", linespacing=1.5)
    return _svg(figure)


def bilevel_step() -> str:
    """What one call of `search_step` computes, the weights first."""
    figure = Figure(figsize=(10, 3.2))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 10), ylim=(0, 3.2))
    axes.set_axis_off()

    def box(x, y, text, colour):
        axes.add_patch(FancyBboxPatch((x - 0.95, y - 0.38), 1.9, 0.76, boxstyle="round,pad=0.05", fc=colour, ec="0.4"))
        axes.text(x, y, text, ha="center", va="center", fontsize=12)

    def arrow(start, end):
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color="0.3"))

    rows = (
        (2.4, "training batch", "op weights\nfrom the logits", "training loss", "weights updated", "#D5E8D4"),
        (
            0.8,
            "validation batch",
            "op weights\nfrom the logits",
            "validation loss\n+ terms",
            "logits updated",
            "#F5DE8A",
        ),
    )
    for y, *texts, colour in rows:
        for place, text in enumerate(texts):
            box(1.2 + 2.5 * place, y, text, colour if place else "#FFFFFF")
            if place:
                arrow((2.5 * place - 0.25, y), (2.5 * place + 0.2, y))
    arrow((8.7, 1.95), (6.4, 1.25))
    axes.text(7.8, 1.4, "new weights", fontsize=12, ha="left", color="0.3")
    return _svg(figure)


DRAWN = {draw.__name__: draw for draw in (op_weights, cell_program, bilevel_step)}
