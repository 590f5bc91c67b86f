"""The kernels of ops/kernels compared with XLA's own functions, forward and each gradient, on this platform.

    python experiments/benchmark_kernels.py

Times are per call of a function that is compiled by itself: medians in milliseconds over rounds in which the
alternatives take turns, for batch 64, 32x32 images, 16 channels and float32. It takes less than a minute on two cores.
"""

import argparse
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
from benchmark_step import alternate
from jax import lax

from prdarts_jax import markdown
from prdarts_jax.ops import kernels
from prdarts_jax.ops.kernels import convolutions

REPEATS = 5


def reduce_window(x: jax.Array, stride: int, initial: float, computation: Callable) -> jax.Array:
    """A 3x3 window reduction with padding 1."""
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, initial, computation, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def library_avg_pool(x: jax.Array, stride: int) -> jax.Array:
    """The mean over the entries inside the image by two window sums."""
    total, count = (reduce_window(a, stride, 0.0, lax.add) for a in (x, jnp.ones_like(x[:1])))
    return total / count


def library_batch_norm(x: jax.Array) -> jax.Array:
    """Batch normalisation with the gradient of autodiff."""
    mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
    return (x - mean) * lax.rsqrt(var + kernels.EPSILON)


def library_pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 1x1 convolution."""
    return lax.conv_general_dilated(x, kernel[None, None], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def cases(batch_size: int, channels: int) -> dict[str, tuple[tuple[jax.Array, ...], dict[str, Callable]]]:
    """name -> (arguments, alternatives)."""
    x = jax.random.normal(jax.random.key(0), (batch_size, 32, 32, channels))
    found = {}
    for size, dilation, stride in ((3, 1, 1), (5, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 2), (5, 2, 2)):
        kernel = jax.random.normal(jax.random.key(1), (size, size, channels)) / size
        alternatives = {
            "ours": lambda x, k, s=stride, d=dilation: kernels.depthwise_conv(x, k, s, d),
            "grouped convolution": lambda x, k, s=stride, d=dilation: convolutions.grouped_conv(
                x, k, stride=s, dilation=d
            ),
            "shifted, autodiff": lambda x, k, s=stride, d=dilation: convolutions.shifted_conv(
                x, k, stride=s, dilation=d
            ),
        }
        found[f"depthwise {size}x{size}, dilation {dilation}, stride {stride}"] = (x, kernel), alternatives
    for s in (1, 2):
        found[f"max pool, stride {s}"] = (
            (x,),
            {
                "ours": lambda x, s=s: kernels.max_pool(x, s),
                "reduce_window": lambda x, s=s: reduce_window(x, s, -jnp.inf, lax.max),
            },
        )
        found[f"average pool, stride {s}"] = (
            (x,),
            {"ours": lambda x, s=s: kernels.avg_pool(x, s), "reduce_window": lambda x, s=s: library_avg_pool(x, s)},
        )
    found["batch norm"] = (x,), {"ours": lambda x: kernels.batch_norm(x)[0], "autodiff": library_batch_norm}
    matrix = jax.random.normal(jax.random.key(2), (channels, channels)) / channels**0.5
    found["pointwise"] = (x, matrix), {"ours": kernels.pointwise_conv, "1x1 convolution": library_pointwise}
    return found


def repeated(function: Callable, arguments: tuple[jax.Array, ...]) -> Callable[[], None]:
    """REPEATS calls of `function`, compiled by itself."""
    compiled = jax.jit(function).lower(*arguments).compile()

    def run():
        for _ in range(REPEATS):
            y = compiled(*arguments)
        jax.block_until_ready(y)

    return run


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], help="kernels whose names contain one of these")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--channels", type=int, default=16)
    arguments = parser.parse_args()
    head = [f"on {jax.devices()[0].device_kind}, ms", "", "forward", "gradient of x", "gradient of the kernel"]
    print(markdown.table(head, []), end="")
    for name, (inputs, alternatives) in cases(arguments.batch_size, arguments.channels).items():
        if not any(part in name for part in arguments.only):
            continue
        runs = {}
        for label, f in alternatives.items():
            dy = jnp.ones_like(jax.eval_shape(f, *inputs)) * 0.5
            runs[label, 0] = repeated(f, inputs)
            for number in range(len(inputs)):

                def gradient(*all_inputs, f=f, number=number):
                    *values, dy = all_inputs
                    return jax.vjp(f, *values)[1](dy)[number]

                runs[label, number + 1] = repeated(gradient, (*inputs, dy))
        seconds = alternate(runs, arguments.rounds)
        for label in alternatives:
            of_label = [found for (name_of, _), found in seconds.items() if name_of == label]
            columns = [f"{1e3 * statistics.median(column) / REPEATS:.2f}" for column in of_label]
            print(markdown.row([name, label, *columns, *[""] * (3 - len(columns))]), flush=True)


if __name__ == "__main__":
    main()
