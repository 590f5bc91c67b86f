"""The work behind the command line that `main` describes: flags, compilation cache, commands and error messages."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import app, flags, logging
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict, config_flags

from prdarts_jax import devices, refusals
from prdarts_jax.fields import check_names
from prdarts_jax.run import (
    compare,
    feeds,
    finished,
    loop,
    pictures,
    predict,
    reporting,
    search,
    settings,
    train,
    validation,
)
from prdarts_jax.search import methods
from prdarts_jax.spaces import genotypes
from prdarts_jax.theory import job

DIVERGED = 3  # the exit code
_EXAMPLES = {"config": "configs/digits.py", "workdir": "runs/digits"}


def use_compilation_cache(folder: str | None) -> None:
    """Lets JAX keep compiled functions in `folder`; '' keeps none.

    None is the folder that JAX_COMPILATION_CACHE_DIR names, by default prdarts_jax in the user's cache folder.
    """
    if folder is None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(home, "prdarts_jax") if os.path.isabs(home) else ""  # relative: there is no home
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", os.path.abspath(os.path.expanduser(folder)) if folder else None)


def join_processes() -> None:
    """Makes this process one of several that run one job, if --distributed or --coordinator is given.

    Only the first process prints and writes; all processes must see the same folders.
    """
    fields = ("coordinator", "processes", "process")
    given = [getattr(flags.FLAGS, name) for name in fields]
    if None in given and given != [None] * 3:
        refuse("--coordinator, --processes and --process belong together: give all three or none of them")
    if None not in given or flags.FLAGS.distributed:
        try:
            jax.distributed.initialize(*given)  # arguments that are None come from SLURM, MPI or the TPU pod
        except (ValueError, RuntimeError) as error:
            how = ", ".join(f"--{name}={getattr(flags.FLAGS, name)}" for name in ("distributed", *fields))
            reason, *_ = str(error).split("\n")
            refuse(f"the processes could not be joined with {how}: {reason}")


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the command line, of which only the program's name is no flag, and returns this name in a list.

    Ends the program with one sentence if the command line cannot be parsed, if a flag is missing, if the config's file
    or a field of the config does not exist, or if a field has no effect since it is of another method.
    """
    try:
        config = config_of(argv)
        program, *others = flags.FLAGS(list(argv))
        if others:
            raise ValueError(
                f"unexpected argument {refusals.shown(others[0])}: a command, {' or '.join(_COMMANDS)}, comes first, "
                "and all other arguments have the form --name=value, without -- before them"
                f"{'' if others[0] in _COMMANDS else refusals.near(others[0], _COMMANDS)}"
            )
        for name, missing in (("config", config is None), ("workdir", flags.FLAGS.workdir is None)):
            if missing:
                raise ValueError(f"--{name} is missing; an example is --{name}={_EXAMPLES[name]}")
    except flags.Error as error:
        refuse(_first_and_last_line(error))
    except ValueError as error:
        refuse(error)
    return [program]


def config_of(argv: Sequence[str]) -> ConfigDict | None:
    """The config that a command line describes; None without --config.

    Raises:
      ValueError: with one sentence, if the config's file or a field of the config does not exist, if a field cannot
        have a value of this type, or if a field has no effect since it is of another method.
    """
    given = next((a for a in argv if a.lstrip("-").startswith("config=")), "--config")
    names = (argument.lstrip("-").partition("=")[0].removeprefix("no") for argument in argv[1:])
    given_fields = [name.removeprefix("config.") for name in names if name.startswith("config.")]
    try:
        flag = _read_config(argv, fields_from=[])
        if not flag.present:
            return None
        fields = [".".join(path) for path in flatten_dict(flag.value.to_dict())]
        sections = {name for field in fields for name in given_fields if field.startswith(f"{name}.")}
        check_names([name for name in given_fields if name not in sections], fields, given)
        config = _read_config(argv, fields_from=argv).value
        _check_sections(given_fields, config)
        return config
    except flags.Error as error:
        raise ValueError(_first_and_last_line(error)) from None
    except ValueError:
        raise
    except Exception as error:  # whatever the config's file raises
        said = str(error)
        if isinstance(error, OSError):  # of a file that cannot be read, with the paths that were tried before the cause
            said = said.strip().rpartition("\n")[2].strip()
        reason = refusals.cut(f"{type(error).__name__}: {said}", 200)
        raise ValueError(
            f"{given} must be a Python file with get_config(), such as configs/digits.py ({reason})"
        ) from error


def _first_and_last_line(error: Exception) -> str:
    """The message has more than one line if the config's file raises an error."""
    first, *others = str(error).strip().splitlines()
    return " ".join([first, *others[-1:]])


def _check_sections(names: Sequence[str], config: ConfigDict) -> None:
    """Refuses the field of a method's section if the config has another method."""
    method = str(config.get("method"))
    for name in names:
        section = name.partition(".")[0]
        if section in methods.NAMED and section != settings.section_of(method):
            raise ValueError(
                f"config.{name} has no effect with config.method={refusals.shown(method)}: leave it out, or set "
                f"--config.method={section}"
            )


def _complain(reason: Exception | str) -> None:
    print(f"error: {refusals.cut(str(reason))}", file=sys.stderr)


def refuse(reason: Exception | str) -> NoReturn:
    """Ends the program with one sentence and the exit code 1."""
    if isinstance(reason, OSError) and reason.filename:
        reason = f"{reason.filename}: {reason.strerror}"
    sys.exit(f"error: {refusals.cut(str(reason)) or type(reason).__name__}")


def _read_config(argv: Sequence[str], fields_from: Sequence[str]) -> Any:
    """The flag --config, whose value is what its file returns, with the fields that `fields_from` sets."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=list(fields_from))
    try:
        values(list(argv), known_only=True)
    except SystemExit as error:
        raise RuntimeError(f"it ends the program with {error.code!r}") from error
    return values["config"]


def main(argv: Sequence[str]) -> None:
    """Runs the job that the flags describe; `argv` is the program's name, as `parse_flags` returns it."""
    logging.set_verbosity(logging.WARNING)  # Orbax reports every save in a dozen lines
    workdir = _workdir(flags.FLAGS.workdir)
    use_compilation_cache(flags.FLAGS.cache_dir)
    join_processes()
    if flags.FLAGS.every_core and not (flags.FLAGS.distributed or flags.FLAGS.coordinator):
        devices.use_every_core()
    try:
        _run(flags.FLAGS.config, workdir)
    except loop.Diverged as error:
        _complain(error)
        sys.exit(DIVERGED)
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            refuse(f"no space left in {workdir}: the same command resumes the run once there is some")
        refuse(error)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "memory" not in str(error).lower():
            raise
        refuse(
            "there is too little memory; fewer channels, cells or images per batch need less, and so does the field "
            f"accumulate: {error}"
        )
    except loop.Stopped as stopped:
        reporting.say(str(stopped))
        sys.exit(128 + stopped.signal)
    reporting.say(f"results in {workdir}")


def _run(config: ConfigDict, workdir: Path) -> None:
    if config.get("job") == "train":
        result = train.run(config, workdir)
        top5 = f" (top 5: {100 * result['top5']:.2f} %)" if len(result["per_class"]) > 5 else ""
        reporting.say(f"test accuracy {100 * result['top1']:.2f} %{top5}")
    elif config.get("job") == "theory":
        reporting.say(job.run(config, workdir))
    else:
        validation.validate(config)
        data = feeds.find_data(config)
        if config.evaluation.epochs:
            compare.check(config, data)  # before the search, not after it
        found = search.run(config, workdir, data)
        for seed, genotype in found.items():
            of_seed = f" of seed_{seed}" if config.seeds > 1 else ""
            reporting.say(f"genotype{of_seed}: {genotypes.to_json(genotype)}")
        if config.evaluation.epochs:
            reporting.say(compare.run(config, workdir, found, data))


def _workdir(text: str) -> Path:
    """The folder that --workdir names; it need not exist."""
    try:
        folder = refusals.path("--workdir", text)
    except ValueError as error:
        refuse(error)
    if folder.exists() and not folder.is_dir():
        refuse(f"--workdir {refusals.shown(text)} must be a folder, but is a file")
    return folder


class _Parser(argparse.ArgumentParser):
    """A parser that reports errors like the rest of the command line."""

    def error(self, message: str) -> NoReturn:
        refuse(f"{message} ({self.format_usage().strip()})")


def _parser() -> _Parser:
    parser = _Parser(prog="prdarts")
    commands = parser.add_subparsers(dest="command", required=True)
    of_images = commands.add_parser("predict", help="classify images with the network of a finished training")
    of_images.add_argument("workdir", help="folder of the training")
    of_images.add_argument("images", nargs="+", help="image files of any size")
    of_cell = commands.add_parser("draw", help="draw a picture of each cell of a genotype")
    of_cell.add_argument("genotype", help="the name of a published cell, a genotype.json, or its text")
    of_cell.add_argument("--out", default="cell.png", help="PATH.png (or .pdf, .svg) gives PATH_normal.png, ...")
    return parser


def _predict(arguments: argparse.Namespace) -> int:
    trained = finished.load(arguments.workdir)
    if not isinstance(trained, finished.Trained):
        raise ValueError(
            f"{arguments.workdir} is a search: train its cell first, for instance with --config=configs/images_eval.py "
            f"--config.genotype={arguments.workdir}/genotype.json"
        )
    use_compilation_cache(None)
    code = 0
    for found in predict.predict(trained, arguments.images):
        if found.refusal:
            _complain(found.refusal)
            code = 1
        else:
            print(f"{found.file}\t{found.name}\t{found.probability:.4f}", flush=True)
    return code


def _draw(arguments: argparse.Namespace) -> int:
    genotype = genotypes.find(arguments.genotype)
    for path in pictures.write_cells(refusals.path("--out", arguments.out), genotype):
        print(path)
    return 0


_COMMANDS = {"predict": _predict, "draw": _draw}


def run() -> None:
    """Runs the command `predict` or `draw` if it is given, or defines the flags and runs `main` with them."""
    if sys.argv[1:] and sys.argv[1] in _COMMANDS:
        arguments = _parser().parse_args()
        try:
            sys.exit(_COMMANDS[arguments.command](arguments))
        except (ValueError, OSError) as error:
            refuse(error)
    flags.disclaim_key_flags()  # they count as flags of the program that calls this, and are listed in its --help
    config_flags.DEFINE_config_file("config", help_string="A file of configs/, or one like them.")
    flags.DEFINE_string("workdir", None, "Folder of the run: created or resumed.")
    flags.DEFINE_string(
        "cache_dir",
        None,
        "Folder for compiled functions, by default prdarts_jax in the user's cache folder; '' keeps none.",
    )
    flags.DEFINE_bool("every_core", True, "On a CPU, give each seed and each training of a cell a core of its own.")
    flags.DEFINE_bool("distributed", False, "Join the other processes of this SLURM or MPI job, or of this TPU pod.")
    flags.DEFINE_string("coordinator", None, "Instead of --distributed: host:port of process 0, for all processes.")
    flags.DEFINE_integer("processes", None, "With --coordinator: the number of processes.")
    flags.DEFINE_integer("process", None, "With --coordinator: the number of this process, from 0.")
    app.run(main, flags_parser=parse_flags)
