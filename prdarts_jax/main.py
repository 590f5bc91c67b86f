"""The command line: a config in, a search, a training or the theory lab run, a folder of results out.

    prdarts --config=configs/digits.py --workdir=runs/digits --config.epochs=20
    prdarts predict WORKDIR IMAGE...     what the network of a finished training takes images for
    prdarts draw GENOTYPE --out=cell.png

`python -m prdarts_jax.main` is the same. A stopped or killed run is resumed by the command that began it. `run/`
says what the folder then holds. The exit code is 0 when all is done, 1 where something is refused, 3 where the run
diverged, 130 after Ctrl-C and 143 after SIGTERM.
"""

from absl import flags

from prdarts_jax.run import signals

if __name__ != "__main__":
    flags.disclaim_key_flags()  # they are those of the script that calls this, and stand in its --help


def cli() -> None:
    """The command `prdarts`, which SIGTERM and Ctrl-C end with a line from here on."""
    with signals.ending_at_signals():
        from prdarts_jax import command_line  # this imports JAX, which takes seconds

        command_line.run()


if __name__ == "__main__":
    cli()
