"""Theorem 4: a shallow cell of two branches converges faster than a deep one with the same gates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from prdarts_jax.theory import gram, model, rates, report
from prdarts_jax.theory.model import Model, Params
from prdarts_jax.theory.report import ClaimReport, Panel, Series
from prdarts_jax.theory.settings import Settings


def shallow(deep: Model) -> Model:
    """The shallow cell B for a deep cell A."""
    return Model(deep.nodes, deep.width, branches=2, activation=deep.activation)


def restrict(deep: Model, arrays: Params) -> Params:
    """The entries for the edges of the shallow cell, from arrays with an entry for each edge of the deep one."""
    at = [deep.edges.index(edge) for edge in shallow(deep).edges]
    return {name: values[jnp.array(at)] for name, values in arrays.items()}


def depth(key: jax.Array, settings: Settings) -> ClaimReport:
    """Compares smallest eigenvalues and losses of deep and shallow cells, which share the weights that both have."""
    findings, details, quotients = [], {}, []
    above = functools.partial(report.mean_above, tests=2 * len(settings.depths))
    for nodes in settings.depths:
        deep = Model(nodes, settings.width)
        wide = shallow(deep)

        def measure(key, deep=deep, wide=wide):
            key_data, key_gates, key_params, key_kernels = jax.random.split(key, 4)
            inputs, targets = model.draw_data(key_data, settings.samples, settings.channels, settings.positions)
            # The deep cell has a second stem that it does not use, and the shallow one does.
            both = model.init(wide, key_params, settings.channels, settings.positions)
            kernels = jax.random.normal(key_kernels, (len(deep.edges), deep.width, 3 * deep.width))
            gates = dict(zip(("skip", "conv"), jax.random.uniform(key_gates, (2, len(deep.edges))), strict=True))
            cells: tuple[tuple[Model, Params, Params], ...] = (
                (deep, both | {"stem": both["stem"][:1], "conv": kernels}, gates),
                (wide, both | restrict(deep, {"conv": kernels}), restrict(deep, gates)),
            )
            matrices = [gram.whole(gram.blocks(*cell, inputs)) for cell in cells]
            step_size = jnp.min(jnp.stack([rates.stable_step(matrix) for matrix in matrices]))
            kernel = gram.smallest_eigenvalue(gram.input_kernel(inputs))
            descents = [model.descend(*cell, inputs, targets, step_size, settings.steps) for cell in cells]
            return {
                "eigenvalue": jnp.stack([gram.smallest_eigenvalue(matrix) for matrix in matrices]),
                "condition": jnp.stack([rates.stable_step(m, 1.0) * gram.smallest_eigenvalue(m) for m in matrices]),
                "losses": jnp.stack([losses for _, losses in descents]),
                "increment": 0.75 * kernel * rates.path_strength(wide, cells[1][2], "printed", branch=1),
            }

        keys = jax.random.split(jax.random.fold_in(key, nodes), settings.draws)
        found = report.over_draws(measure, keys, 8 * len(deep.edges) * deep.width**2)
        (of_deep, of_shallow), losses, increment = found["eigenvalue"].T, found["losses"], found["increment"]
        quotient = np.log(of_shallow / of_deep)
        quotients.append(quotient)
        falls = np.log10(losses / losses[:, :, :1])
        findings += [
            report.always_above(
                f"h = {nodes}: lambda_min(G) of the shallow cell is at least that of the deep one", quotient, "draws"
            ),
            above(f"h = {nodes}: it is larger on average (mean of ln lambda_B / lambda_A above 0)", quotient),
            above(
                f"h = {nodes}: with one step size the loss of the shallow cell falls further (log10, after "
                f"{settings.steps} steps)",
                falls[:, 0, -1] - falls[:, 1, -1],
            ),
        ]
        surplus = of_shallow - of_deep
        conditions = np.log(found["condition"][:, 1] / found["condition"][:, 0])
        details[f"h = {nodes}"] = {
            "share of draws with lambda_B >= lambda_A": float(np.mean(quotient >= 0)),
            "mean of lambda_B / lambda_A (geometric)": float(np.exp(quotient.mean())),
            "the same of lambda_min / lambda_max": float(np.exp(conditions.mean())),
            "c_sigma, the largest that keeps the bound (below 0: none does)": float((surplus / increment).min()),
            "Spearman of lambda_B - lambda_A with the bound's increment": report.spearman(increment, surplus),
        }
    return ClaimReport(
        claim="theorem4_depth",
        statement=(
            "lambda_B >= lambda_A + 3/4 c_sigma lambda_min(K) sum_{s>=h/2} (g^conv_{s,h-1})^2 prod_t (g^skip_t)^2: the "
            "shallow cell B converges faster than the deep cell A (Theorem 4)."
        ),
        setting=(
            f"h in {settings.depths}, m = {settings.width}, n = {settings.samples}, p = {settings.positions}, "
            f"softplus, {settings.draws} draws of data, weights and gates (independent, uniform in [0, 1]), "
            f"shared where both have them; one step size for both, n / (2 lambda_max) of the larger"
        ),
        findings=tuple(findings),
        panels=(
            Panel(
                "smallest eigenvalues",
                "depth h",
                "ln lambda_B / lambda_A",
                (
                    Series("draws", np.repeat(settings.depths, settings.draws), np.ravel(quotients), points=True),
                    Series("equal", settings.depths, np.zeros(len(settings.depths))),
                ),
            ),
            Panel(
                f"loss, h = {settings.depths[-1]}",
                "step",
                "log10 F(k) / F(0), mean",
                [
                    Series(name, range(settings.steps + 1), curve)
                    for name, curve in zip(("deep", "shallow"), falls.mean(0), strict=True)
                ],
            ),
        ),
        details=details,
    )
