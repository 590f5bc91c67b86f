"""Theorem 2: raising a gate does not raise the smallest loss, so that independent gates become dense."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prdarts_jax.theory import gram, model, rates, report
from prdarts_jax.theory.model import Model
from prdarts_jax.theory.report import ClaimReport, Finding, Panel, Series
from prdarts_jax.theory.settings import Settings

_EPSILONS = (0.05, 0.1)
_SAMPLES = 128  # more than the 84 weights of the network below, so that its loss does not reach 0
_SHAPE = Model(nodes=3, width=2)
_POSITIONS = 4

# By whether the theorem's second part is about the kind of gate. That a loss "does not rise" is shown if it falls.
_CLAIMED = {True: "lowers the loss", False: "does not raise the loss"}


def _kinds(shape: Model) -> dict[str, np.ndarray]:
    """{kind: bool[2 * edges], which gates are of this kind}; skip of all edges comes first, then conv of all edges."""
    into_last = np.array([target == shape.nodes - 1 for _, target in shape.edges])
    none = np.zeros_like(into_last)
    return {
        "skip, not into the last node": np.concatenate([~into_last, none]),
        "conv into the last node": np.concatenate([none, into_last]),
        "skip into the last node": np.concatenate([into_last, none]),
        "conv, not into the last node": np.concatenate([none, ~into_last]),
    }


def gates_raised(key: jax.Array, settings: Settings) -> ClaimReport:
    """Trains the same weights with gates g and with one of them raised, for every gate."""
    shape, edges = _SHAPE, len(_SHAPE.edges)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, settings.gate_steps))

    def converge(params, gates, inputs, targets):
        def step(carry, _):
            params, state = carry
            gradient = jax.grad(model.loss, argnums=1)(shape, params, gates, inputs, targets)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=settings.gate_steps)
        return params, model.loss(shape, params, gates, inputs, targets)

    def measure(key):
        """F with the gates as they are and with each gate raised, f[1 + epsilons * gates], converged and after a few
        steps; -d ln F / d gate at the converged weights, f[gates]; and the norm of d ln F / d weights there."""
        key_data, key_gates, key_params = jax.random.split(key, 3)
        inputs, targets = model.draw_data(key_data, _SAMPLES, settings.channels, _POSITIONS)
        params = model.init(shape, key_params, settings.channels, _POSITIONS)
        g = jax.random.uniform(key_gates, (2 * edges,), minval=0.2, maxval=0.8)
        raised = g + (jnp.array(_EPSILONS)[:, None, None] * jnp.eye(2 * edges)).reshape(-1, 2 * edges)
        all_gates = jnp.concatenate([g[None], raised])

        def named(g):
            return {"skip": g[:edges], "conv": g[edges:]}

        step_size = rates.stable_step(gram.whole(gram.blocks(shape, params, named(g), inputs)), 0.2)

        def after_few(g):
            return model.descend(shape, params, named(g), inputs, targets, step_size, settings.steps)[1][-1]

        trained, losses = jax.vmap(lambda g: converge(params, named(g), inputs, targets))(all_gates)
        # At a minimum over the weights, the derivative of the minimum is that of F alone (envelope theorem).
        weights = jax.tree.map(lambda w: w[0], trained)

        def log_loss(weights, g):
            return jnp.log(model.loss(shape, weights, named(g), inputs, targets))

        left, slope = jax.grad(log_loss, argnums=(0, 1))(weights, g)
        return losses, jax.vmap(after_few)(all_gates), -slope, optax.tree.norm(left)

    keys = jax.random.split(key, settings.gate_draws)
    *results, slopes, left = report.over_draws(measure, keys, 100_000)
    findings: list[Finding] = []
    panels: list[Panel] = []
    details: dict[str, Any] = {}
    kinds = _kinds(shape)
    tests = 3 * len(kinds)
    for name, losses in zip(("converged", f"after {settings.steps} steps"), results, strict=True):
        base = losses[:, 0]
        falls = (1 - losses[:, 1:] / base[:, None]).reshape(len(losses), len(_EPSILONS), 2 * edges)
        of_kind = {kind: falls[:, :, where].mean(2) for kind, where in kinds.items()}
        for number, (kind, values) in enumerate(of_kind.items()):
            findings.append(
                report.mean_above(f"{name}: raising a gate ({kind}) {_CLAIMED[number < 2]}", values[:, 1], tests=tests)
            )
        panels.append(
            Panel(
                f"{name}: share of the loss that goes away",
                "how much one gate is raised",
                "1 - F(g + epsilon) / F(g), mean",
                [Series(kind, (0.0, *_EPSILONS), (0.0, *values.mean(0))) for kind, values in of_kind.items()],
            )
        )
        details[name] = {
            kind: {
                "mean fall of the loss for 0.05 and 0.1": values.mean(0),
                "share of draws in which it falls": np.mean(values > 0, axis=0),
                "fall for 0.1 over that for 0.05 (linear: 2)": float(values[:, 1].mean() / values[:, 0].mean()),
            }
            for kind, values in of_kind.items()
        }
        details[name]["loss before"] = float(base.mean())
    of_kind = {kind: slopes[:, where].mean(1) for kind, where in kinds.items()}
    for number, (kind, values) in enumerate(of_kind.items()):
        text = f"converged: -d ln F / d gate ({kind}) is positive, so that raising it a little {_CLAIMED[number < 2]}"
        findings.append(report.mean_above(text, values, tests=tests))
    details["slopes where Adam stopped"] = {
        "share of gates with a positive one, by kind": {
            kind: float(np.mean(slopes[:, where] > 0)) for kind, where in kinds.items()
        },
        "their standard deviation, by kind": {kind: float(np.std(slopes[:, where])) for kind, where in kinds.items()},
        "norm of the gradient of ln F in the weights, median": float(np.median(left)),
    }
    return ClaimReport(
        claim="theorem2_gates",
        statement=(
            "(1) Raising any gate does not raise min_W F; (2) raising a skip gate (l < h-1) or a conv gate into the "
            "last node by epsilon lowers it by C epsilon in expectation (Theorem 2)."
        ),
        setting=(
            f"h = {shape.nodes}, m = {shape.width}, n = {_SAMPLES}, p = {_POSITIONS}, softplus: more samples than "
            f"weights; {settings.gate_draws} draws of data, weights and gates in [0.2, 0.8]; converged: Adam for "
            f"{settings.gate_steps} steps; after {settings.steps} steps: of gradient descent; all from the same weights"
        ),
        findings=tuple(findings),
        panels=tuple(panels),
        details=details,
    )
