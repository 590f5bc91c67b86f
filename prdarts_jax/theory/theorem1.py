"""Theorem 1: the weights of skip connections and convolutions decide how fast the loss falls."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from prdarts_jax.theory import gram, model, rates, report
from prdarts_jax.theory.model import Model
from prdarts_jax.theory.report import ClaimReport, Finding, Panel, Series
from prdarts_jax.theory.settings import Settings


def _draw(key, settings, shape):
    """(weights, alpha, inputs, targets) of one draw."""
    key_data, key_alpha, key_params = jax.random.split(key, 3)
    inputs, targets = model.draw_data(key_data, settings.samples, settings.channels, settings.positions)
    params = model.init(shape, key_params, settings.channels, settings.positions)
    return params, model.draw_alpha(key_alpha, shape), inputs, targets


def _floats(shape):
    """The number of floats of a network's weights and of their gradients, about."""
    return 3 * (3 * len(shape.edges) * shape.width**2)


def descent(key: jax.Array, settings: Settings) -> ClaimReport:
    """Check (i): the loss stays below the linear rate that G(0) gives, and G stays near G(0) in wide networks."""
    n, steps = settings.samples, settings.steps
    keys = jax.random.split(key, settings.runs)  # the same data and alpha for all widths
    margins, printed_margins, drifts, slacks = [], [], [], {}
    for width in settings.widths:
        shape = Model(4, width)

        def run(key, shape=shape):
            params, alpha, inputs, targets = _draw(key, settings, shape)
            before = gram.whole(gram.blocks(shape, params, alpha, inputs))
            step_size = rates.stable_step(before)
            params, losses = model.descend(shape, params, alpha, inputs, targets, step_size, steps)
            after = gram.whole(gram.blocks(shape, params, alpha, inputs))
            drift = jnp.linalg.norm(after - before) / jnp.linalg.norm(before)
            return losses, step_size * gram.smallest_eigenvalue(before), drift

        losses, speed, drift = report.over_draws(run, keys, _floats(shape))
        falls = np.log(losses / losses[:, :1])  # [runs, steps + 1]
        k = np.arange(steps + 1)
        bound, printed = k * np.log1p(-speed[:, None] / (4 * n)), k * np.log1p(-speed[:, None] / 4)
        margins.append((bound - falls)[:, 1:])
        printed_margins.append((printed - falls)[:, 1:])
        drifts.append(drift)
        slacks[str(width)] = float(np.mean(falls[:, -1] / bound[:, -1]))
    drift = np.array(drifts)  # [widths, runs]
    slopes, _ = np.polyfit(np.log(settings.widths), np.log(drift), 1)
    return ClaimReport(
        claim="theorem1_descent",
        statement="F(k) <= (1 - eta lambda / 4)^k F(0); step (i) of the proof has lambda_min(G(0)) for lambda.",
        setting=(
            f"h = 4, n = {n}, p = {settings.positions}, c = {settings.channels}, softplus, {settings.runs} draws for "
            f"each width of {settings.widths}, {steps} steps of eta = n / (2 lambda_max(G(0)))"
        ),
        findings=(
            report.always_above(
                "F(k) <= (1 - eta lambda_min(G(0)) / (4n))^k F(0) at every step, the 1/n of F minded",
                np.concatenate(margins, axis=None),
                "steps",
            ),
            report.always_above(
                "the same as printed, without 1/n", np.concatenate(printed_margins, axis=None), "steps"
            ),
            report.mean_above(
                "|G(K) - G(0)| / |G(0)| shrinks with the width: minus the slope of the logarithms is positive (in the "
                "analysis 1/2)",
                -slopes,
            ),
        ),
        panels=(
            Panel(
                f"m = {settings.widths[-1]}",
                "step",
                "log10 F(k) / F(0), mean",
                (
                    Series("measured", range(steps + 1), falls.mean(0) / np.log(10)),
                    Series("bound (i)", range(steps + 1), bound.mean(0) / np.log(10)),
                ),
            ),
            Panel(
                "drift of the Gram matrix",
                "width m",
                "|G(K) - G(0)| / |G(0)|",
                (
                    Series("draws", np.repeat(settings.widths, settings.runs), drift.ravel(), points=True),
                    Series("mean", settings.widths, np.exp(np.log(drift).mean(1))),
                ),
                "xy",
            ),
        ),
        details={
            "drift": dict(zip(slacks, map(float, drift.mean(1)), strict=True)),
            "measured fall over that of the bound (logarithms)": slacks,
        },
    )


def _measure(key, settings, activation):
    """S in all readings, eigenvalues of G(0), and the rate, for many draws of weights and alpha and one of the data."""
    shape = Model(settings.nodes, settings.width, activation=activation)
    key_data, key_params, key_alpha = jax.random.split(key, 3)
    inputs, targets = model.draw_data(key_data, settings.samples, settings.channels, settings.positions)
    into_last = np.array([target == shape.nodes - 1 for _, target in shape.edges])

    def draw(keys):
        params = model.init(shape, keys[0], settings.channels, settings.positions)
        return params, model.draw_alpha(keys[1], shape)

    def eigenvalues(keys):
        params, alpha = draw(keys)
        parts = gram.blocks(shape, params, alpha, inputs)
        full = gram.whole(parts)
        return {
            "strength": {reading: rates.path_strength(shape, alpha, reading) for reading in rates.READINGS},
            "whole": gram.smallest_eigenvalue(full),
            "last": gram.smallest_eigenvalue(jnp.sum(parts["conv"][into_last], 0)),
            "step": rates.stable_step(full),
        }

    keys = jnp.stack([jax.random.split(k, settings.draws) for k in (key_params, key_alpha)], axis=1)
    found = report.over_draws(eigenvalues, keys, 2 * _floats(shape))
    step_size = float(found["step"].min())  # one for all, stable for all

    def descend(keys):
        params, alpha = draw(keys)
        return model.descend(shape, params, alpha, inputs, targets, step_size, settings.steps)[1]

    losses = report.over_draws(descend, keys, _floats(shape))
    found["rate"] = -np.log(losses[:, -1] / losses[:, 0]) / settings.steps
    found["kernel"] = float(gram.smallest_eigenvalue(gram.input_kernel(inputs, activation=activation)))
    found["printed kernel"] = float(gram.smallest_eigenvalue(gram.input_kernel(inputs, "printed")))
    return found


def gram_bound(key: jax.Array, settings: Settings) -> ClaimReport:
    """Check (ii): whether S(alpha), in one of its readings, decides lambda_min(G(0)) and the rate."""
    findings, panels, details = [], [], {}
    tests = 3 * len(settings.activations)
    for activation in settings.activations:
        found = _measure(jax.random.fold_in(key, 0), settings, activation)
        strengths, printed = found["strength"], found["strength"]["printed"]
        constants = {
            reading: float(np.min(found["whole"] / (0.75 * found["kernel"] * strength)))
            for reading, strength in strengths.items()
        }
        table = {
            reading: {
                "c_sigma, the largest that keeps the bound": constants[reading],
                "median of lambda_min(G(0)) / bound, at that c_sigma": float(
                    np.median(found["whole"] / (0.75 * found["kernel"] * constants[reading] * strength))
                ),
                "Spearman with lambda_min(G(0))": report.spearman(strength, found["whole"]),
                "Spearman with lambda_min of the convolutions into the last node": report.spearman(
                    strength, found["last"]
                ),
                "Spearman with the rate": report.spearman(strength, found["rate"]),
            }
            for reading, strength in strengths.items()
        }
        details[activation] = {
            "lambda_min(K), activations": found["kernel"],
            "readings": table,
            "how often a reading correlates best with lambda_min(G(0)), of 2,000 resamples": _best(
                strengths, found["whole"]
            ),
        }
        findings += [
            report.correlation_above(f"{activation}: {what} rises with S as printed", printed, found[name], tests=tests)
            for name, what in {
                "whole": "lambda_min(G(0))",
                "last": "lambda_min of the blocks that S is derived from, the convolutions into the last node,",
                "rate": "the measured rate",
            }.items()
        ]
        best = max(table, key=lambda reading: table[reading]["Spearman with lambda_min(G(0))"])
        for reading in dict.fromkeys(("printed", best)):
            bound = 0.75 * found["kernel"] * constants[reading] * np.sort(strengths[reading])
            series = (
                Series("draws", strengths[reading], found["whole"], points=True),
                Series("bound, fitted c_sigma", np.sort(strengths[reading]), bound),
            )
            panels.append(Panel(f"{activation}: S {reading}", "S(alpha)", "lambda_min(G(0))", series, "xy"))
    eigenvalue = found["printed kernel"]  # of the data, the same for all
    findings.append(
        Finding(
            "K of the blocks as printed has a positive smallest eigenvalue, without which the bound says nothing",
            eigenvalue,
            eigenvalue,
            eigenvalue,
            "smallest eigenvalue of its symmetric part",
            "holds" if eigenvalue > 0 else "fails",
            eigenvalue,
        )
    )
    return ClaimReport(
        claim="theorem1_gram",
        statement=(
            "lambda_min(G(0)) >= 3/4 c_sigma lambda_min(K) S(alpha), S(alpha) = sum_{s<=h-2} (alpha^conv_{s,h-1})^2 "
            "prod_{t<s} (alpha^skip_t)^2; K with positive smallest eigenvalue (Theorem 1, step (ii) of the proof)."
        ),
        setting=(
            f"h = {settings.nodes}, m = {settings.width}, n = {settings.samples}, p = {settings.positions}, c = "
            f"{settings.channels}, {settings.draws} draws of weights and alpha (skip, conv and zero uniform on the "
            f"simplex of each edge) on one draw of the data; rate: mean fall of log F over {settings.steps} steps of "
            "one step size for all"
        ),
        findings=tuple(findings),
        panels=tuple(panels),
        details=details,
    )


def _best(strengths, eigenvalue):
    """{reading: share of resamples in which it has the largest correlation}."""
    names = list(strengths)

    def winner(i):
        return int(np.argmax([report.spearman(strengths[name][i], eigenvalue[i]) for name in names]))

    winners = report.bootstrap(winner, len(eigenvalue))
    return {name: float(np.mean(winners == number)) for number, name in enumerate(names)}


def weights(key: jax.Array, settings: Settings) -> ClaimReport:
    """Check which op weights matter: the elasticity of lambda_min(G(0)) in each, on the path and into the last node."""
    shape = Model(settings.nodes, settings.width)
    edges = shape.edges
    last = shape.nodes - 1
    shared = np.array([target < last for _, target in edges])
    chain = np.array([target < last and target == source + 1 for source, target in edges])

    def measure(key):
        params, alpha, inputs, _ = _draw(key, settings, shape)

        def eigenvalue(alpha):
            return gram.smallest_eigenvalue(gram.whole(gram.blocks(shape, params, alpha, inputs)))

        raw = rates.elasticities(eigenvalue, alpha)
        strength = rates.elasticities(lambda alpha: rates.path_strength(shape, alpha, "printed"), alpha)
        return raw, rates.normalized_elasticities(raw, alpha), strength

    raw, softmax, strength = report.over_draws(
        measure, jax.random.split(key, settings.draws), 4 * _floats(shape)
    )  # each {op: [draws, edges]}

    above = functools.partial(report.mean_above, tests=4)
    heavier, ops = raw["skip"] - raw["conv"], ("skip", "conv", "zero")
    names = [f"{source},{target}" for source, target in edges]

    def series(values):
        errors = {op: 1.96 * scipy.stats.sem(values[op]) for op in ops}
        means = {op: values[op].mean(0) for op in ops}
        at = range(len(edges))
        return [Series(op, at, means[op], means[op] - errors[op], means[op] + errors[op], points=True) for op in ops]

    def by_edge(values):
        return {op: dict(zip(names, map(float, values[op].mean(0)), strict=True)) for op in ops}

    return ClaimReport(
        claim="theorem1_weights",
        statement=(
            "Skip connections on the shared path, and convolutions into the last node, weigh more in the rate than the "
            "others; zero ops slow it (section 3.2, after Theorem 1)."
        ),
        setting=(
            f"h = {settings.nodes}, m = {settings.width}, n = {settings.samples}, softplus, {settings.draws} draws of "
            "data, weights and alpha; elasticity d log lambda_min(G(0)) / d log alpha, exact"
        ),
        findings=(
            above("skip is heavier than conv on the edges that do not enter the last node", heavier[:, shared].mean(1)),
            above("skip is heavier than conv on the chain 0 -> 1 -> ... -> h-2", heavier[:, chain].mean(1)),
            above("conv is heavier than skip on the edges into the last node", -heavier[:, ~shared].mean(1)),
            above(
                "under a softmax, raising the logit of a zero op lowers lambda_min: minus its elasticity is positive",
                -softmax["zero"].mean(1),
            ),
        ),
        panels=(
            Panel(
                "elasticity of lambda_min(G(0))",
                f"edge (from, to), {', '.join(names)}",
                "d log / d log alpha",
                series(raw),
            ),
            Panel("of S(alpha) as printed", "edge, in the same order", "d log / d log alpha", series(strength)),
        ),
        details={"mean elasticity": by_edge(raw), "mean elasticity under a softmax": by_edge(softmax)},
    )
