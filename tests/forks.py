"""Commands of Python in forks of one process, which has imported torch, MONAI and the package and done nothing else.

A process of its own takes seconds to import these, longer than most commands of a test take. What a test starts by
`subprocess` is a way in of which that is a part: imports, torchrun, an installed package, a fresh clone.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
import warnings
from multiprocessing import connection, forkserver
from pathlib import Path

import children

ROOT = Path(__file__).parent.parent
PYTHON = multiprocessing.get_context("forkserver")
PACKAGE = [
    f"medsegdiff_bundle.{name}" for name in ("cli", "handlers", "inferers", "segmenter", "transforms", "workflow")
]
PYTHON.set_forkserver_preload(["monai.apps.auto3dseg", "matplotlib.pyplot", "torch.utils.tensorboard", *PACKAGE])


def python(*words):
    """`python`, with the options that tests use."""
    if words[0] == "-W":
        warnings.simplefilter(words[1])
        words = words[2:]
    option, *words = words
    if option == "-c":
        code, *words = words
        sys.argv = [option, *words]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif option == "-m":
        module, *words = words
        sys.argv = [module, *words]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [option, *words]
        runpy.run_path(option, run_name="__main__")


def _be(words, folder, environment, streams):
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    children.write_to(*streams)
    sys.exit(children.status(lambda: python(*words)))


def run_together(command, environments, cwd=None, timeout=240):
    """A command in a fork for each of some environments; once one of them fails, the others are ended.

    Args:
        command: `sys.executable` and what `python` takes.
        environments: in place of that of this process.
        cwd: folder in which they run.
        timeout: seconds for all of them.

    Returns:
        What `subprocess.run` returns, of all together: the status of the first that failed.

    Raises:
        subprocess.TimeoutExpired: they are ended then.
    """
    words = [str(word) for word in command[1:]]
    before = os.getcwd()
    os.chdir(ROOT)  # where the package is that is imported, if it is not installed
    try:
        forkserver.ensure_running()
    finally:
        os.chdir(before)
    with tempfile.TemporaryDirectory() as scratch:
        streams = [
            [Path(scratch) / f"{name}_{number}" for name in ("out", "err")] for number in range(len(environments))
        ]
        forks = [
            PYTHON.Process(target=_be, args=(words, str(cwd or before), dict(environment), files))
            for environment, files in zip(environments, streams, strict=True)
        ]
        for fork in forks:
            fork.start()
        end = time.monotonic() + timeout
        code = None
        try:
            while code is None:
                alive = [fork.sentinel for fork in forks if fork.exitcode is None]
                if alive and not connection.wait(alive, max(0, end - time.monotonic())):
                    raise subprocess.TimeoutExpired(command, timeout)
                codes = [fork.exitcode for fork in forks]
                code = next((each for each in codes if each), None if None in codes else 0)
        finally:
            for fork in forks:
                fork.kill()
                fork.join()
        said = ["".join(file.read_text() for file in files if file.exists()) for files in zip(*streams, strict=True)]
    return subprocess.CompletedProcess(command, code, *said)


def run(command, cwd=None, env=None, check=False):
    """`subprocess.run` of a command of Python in a fork, with both streams as text."""
    done = run_together(command, [os.environ if env is None else env], cwd)
    if check:
        done.check_returncode()
    return done
