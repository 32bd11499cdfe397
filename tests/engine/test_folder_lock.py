import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_consistent.engine.folder_lock import NAME, FolderInUseError, FolderLock
from tests.support.toy import train_toy

ROOT = Path(__file__).resolve().parents[2]
# Takes the folder, has a child as a data loader has workers, and waits.
HOLDER = """
import os, sys, time
from mmdet_consistent.engine.folder_lock import FolderLock
lock = FolderLock(sys.argv[1])
lock.acquire()
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder, and its child."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLDER, str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    # Some libraries print when they are imported.
    child = int(next(line for line in process.stdout if line.strip().isdigit()))
    yield process
    process.kill()
    os.kill(child, signal.SIGKILL)
    process.communicate()


def test_a_second_training_is_refused_until_the_first_is_dead(tmp_path, holder):
    with pytest.raises(FolderInUseError) as error:
        train_toy(tmp_path)
    assert f'{tmp_path} is in use' in str(error.value)
    assert f'process {holder.pid}, ' in str(error.value)
    assert not list(tmp_path.glob('*.pth'))
    holder.kill()
    holder.wait()
    # Its child is still there, and has no part in it.
    train_toy(tmp_path, epochs=1)
    assert (tmp_path / 'epoch_1.pth').is_file()


def is_free(folder):
    """Whether another process could have it."""
    command = (
        'import fcntl, sys\n'
        'with open(sys.argv[1], "r+") as file:\n'
        '    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n'
    )
    process = [sys.executable, '-c', command, str(folder / NAME)]
    result = subprocess.run(process, capture_output=True, text=True)
    assert result.returncode == 0 or 'BlockingIOError' in result.stderr
    return result.returncode == 0


def test_it_is_held_until_let_go_of(tmp_path):
    lock = FolderLock(tmp_path)
    assert lock.acquire()
    assert not is_free(tmp_path)
    lock.release()
    lock.release()
    assert is_free(tmp_path)
    lock.acquire()
    del lock
    assert is_free(tmp_path)


def test_a_training_that_ended_holds_nothing(tmp_path):
    train_toy(tmp_path, epochs=1)
    assert (tmp_path / NAME).read_text().startswith(f'process {os.getpid()}, ')
    assert is_free(tmp_path)


def test_files_that_cannot_be_locked_are_told_of(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', refuse)
    train_toy(tmp_path, epochs=1)
    assert f'files in {tmp_path} cannot be locked' in capsys.readouterr().out
