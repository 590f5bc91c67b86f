"""The command line, in a process that is killed as it is about to touch a file: for test_kill.py.

PYTHONPATH=.:tests python tests/killed.py EVENT NUMBER ARGUMENTS...

EVENT is a regular expression, of which the match with that number kills. What it is matched with is one of Python's
audit events, raised before the file is touched, as "open /runs/a/metrics.jsonl ab ..." or "os.rename FROM TO ...".
"""

import os
import re
import signal
import sys


def kill_at(event, number):
    left = number

    def look(name, arguments):
        nonlocal left
        if name.startswith(("open", "os.", "shutil.")) and re.search(event, " ".join(map(str, (name, *arguments)))):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


if __name__ == "__main__":
    from prdarts_jax.main import cli

    event, number, *sys.argv[1:] = sys.argv[1:]
    kill_at(event, int(number))
    cli()
