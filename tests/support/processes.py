"""Run programs: in a process of their own, or, which is quicker, in this one."""

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command, status=0, cwd=ROOT, env=None):
    """Run a command with one thread, and return what it prints.

    Fails, showing the end of the output, unless the command ends with ``status``; None
    accepts any.
    """
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**(env or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert status in (None, done.returncode), done.stdout[-3000:]
    return done.stdout


def environment(**more):
    """This process's environment, with what lets programs import the tests."""
    return {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PYTHON': sys.executable,
        'PYTHONPATH': str(ROOT),
        **more,
    }


def run_tool(path, *arguments):
    """Run a tool's file in this process, as its own program."""
    argv, sys.argv = sys.argv, [str(path), *map(str, arguments)]
    try:
        runpy.run_path(str(path), run_name='__main__')
    finally:
        sys.argv = argv


def free_port():
    """Return a port of the loopback that nobody uses."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


# Lets a script import mmdet before mmdet_consistent, compiled operators or none.
STUB_OPERATORS = """
import importlib.machinery, sys, types

class NoOperators(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return print

sys.modules['mmcv._ext'] = stub = NoOperators('mmcv._ext')
stub.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
"""
