"""The command line: it runs a search, a training or the theory lab from a config, and writes a folder of results.

    prdarts --config=configs/digits.py --workdir=runs/digits --config.epochs=20
    prdarts predict WORKDIR IMAGE...     classifies images with the network of a finished training
    prdarts draw GENOTYPE --out=cell.png

`python -m prdarts_jax.main` is the same. A stopped or killed run is resumed by the command that began it. The modules
of `prdarts_jax.run` describe the files in the folder. The exit code is 0 if all is done, 1 if something is refused, 3
if the run diverged, 130 after Ctrl-C and 143 after SIGTERM.
"""

import sys

from absl import flags

from prdarts_jax.run import signals

if __name__ != "__main__":
    flags.disclaim_key_flags()  # they count as flags of the script that calls this, and are listed in its --help


def cli() -> None:
    """The command `prdarts`. From this call on, SIGTERM and Ctrl-C end the program with a message of one line."""
    program = sys.modules["__main__"]
    program.__doc__ = program.__doc__ or __doc__  # --help begins with it
    with signals.ending_at_signals():
        from prdarts_jax import command_line  # this imports JAX, which takes seconds

        command_line.run()


if __name__ == "__main__":
    cli()
