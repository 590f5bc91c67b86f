"""A lock, so that only one process at a time runs in a folder."""

import contextlib
import errno
import functools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, TypeVar

from prdarts_jax import devices, refusals
from prdarts_jax.run import reporting

NAME = "lock"  # of the locked file, which exists while a process runs in the folder

_P = ParamSpec("_P")
_T = TypeVar("_T")


def alone(run: Callable[Concatenate[Any, Path, _P], _T]) -> Callable[Concatenate[Any, str | Path, _P], _T]:
    """A decorator of functions of (what, workdir, ...): only one process at a time runs such a function in a workdir.

    If several processes run one job, the first takes the lock for all of them, and all must see the file. The lock ends
    with its process, however that ends. It holds on all hosts if the file system has locks; if it has none, a message
    says so. A folder that was made only for the lock is removed afterwards.

    Raises:
      ValueError: another process, named by number and host, runs there; or the processes do not share the folder.
    """

    @functools.wraps(run)
    def locked(what: Any, workdir: str | Path, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        workdir = refusals.path("workdir", workdir)
        refusal: Exception | None = None
        with contextlib.ExitStack() as stack:
            try:
                if devices.is_main():
                    stack.enter_context(_locked(workdir))
            except (ValueError, OSError) as error:
                refusal = error
            if devices.any(refusal is not None):
                raise refusal or ValueError(f"the first process cannot use {workdir}")
            if devices.any(not (workdir / NAME).exists()):
                raise ValueError(
                    f"{workdir} is not the same for all processes: --workdir must be a folder that they share"
                )
            return run(what, workdir, *args, **kwargs)

    return locked


@contextlib.contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / NAME
    with contextlib.ExitStack() as stack:
        for folder in reversed(made):
            stack.callback(_remove_if_empty, folder)
        file = stack.enter_context(path.open("a+"))
        _lock(file, workdir)
        while not (path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())):
            file.close()  # the process that held the lock has removed the file in between
            file = stack.enter_context(path.open("a+"))
            _lock(file, workdir)
        stack.callback(_remove, path)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _lock(file: IO[str], workdir: Path) -> None:
    import fcntl  # not above, since Windows lacks it; no job can be run there

    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.seek(0)
            owner = file.read() or "another process"
            raise ValueError(
                f"{workdir} is in use by {owner}: wait until that has ended, or use another --workdir"
            ) from error
        reporting.say(f"careful: {workdir} cannot be locked ({error.strerror}): let no other process run in it")


def _remove(path):
    with contextlib.suppress(OSError):  # a file that cannot be removed does no harm
        path.unlink()


def _remove_if_empty(folder):
    with contextlib.suppress(OSError):
        folder.rmdir()
