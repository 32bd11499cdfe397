import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
from mmengine.utils import digit_version

from mmdet_consistent.engine.folder_lock import (
    HOLDER,
    LOCK,
    FolderInUseError,
    FolderLock,
)
from tests.support.toy import train_toy

ROOT = Path(__file__).resolve().parents[2]
# Takes the folder, has a child as a data loader has workers, and waits.
HOLD = """
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
    """Another process that holds the folder, and has a child."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    # Some libraries print when they are imported.
    child = int(next(line for line in process.stdout if line.strip().isdigit()))
    yield process
    process.kill()
    os.kill(child, signal.SIGKILL)
    process.communicate()


@pytest.mark.skipif(
    digit_version(filelock.__version__) < digit_version('3.32'),
    reason='filelock < 3.32: a living child of a killed process keeps its locks',
)
def test_training_is_refused_until_the_holder_of_its_folder_is_dead(tmp_path, holder):
    with pytest.raises(FolderInUseError) as error:
        train_toy(tmp_path)
    assert f'{tmp_path} is in use' in str(error.value)
    assert f'process {holder.pid}, ' in str(error.value)
    assert not list(tmp_path.glob('*.pth'))
    (tmp_path / HOLDER).unlink()
    with pytest.raises(FolderInUseError, match='unknown process'):
        FolderLock(tmp_path).acquire()
    holder.kill()
    holder.wait()
    # Its child is still alive, and does not hold the folder.
    train_toy(tmp_path, epochs=1)
    assert (tmp_path / 'epoch_1.pth').is_file()


def is_free(folder):
    """Return whether another process could take the lock."""
    lock = filelock.FileLock(folder / LOCK)
    try:
        with lock.acquire(timeout=0):
            return True
    except filelock.Timeout:
        return False


def test_lock_is_held_until_released_or_deleted(tmp_path):
    lock = FolderLock(tmp_path)
    assert lock.acquire()
    assert not is_free(tmp_path)
    lock.release()
    lock.release()
    assert is_free(tmp_path)
    lock.acquire()
    del lock
    assert is_free(tmp_path)


def test_interrupted_training_of_the_same_process_gives_way_to_the_next(tmp_path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    assert first.acquire()
    assert second.acquire()
    first.release()
    assert not is_free(tmp_path)
    second.release()
    assert is_free(tmp_path)


def test_finished_training_holds_nothing(tmp_path):
    train_toy(tmp_path, epochs=1)
    assert (tmp_path / HOLDER).read_text().startswith(f'process {os.getpid()}, ')
    assert is_free(tmp_path)


def test_folder_whose_files_cannot_be_locked_is_warned_of(
    tmp_path, monkeypatch, capsys
):
    def refuse(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr('fcntl.flock', refuse)
    train_toy(tmp_path, epochs=1)
    assert f'files in {tmp_path} cannot be locked' in capsys.readouterr().out


def test_package_trains_where_fcntl_does_not_exist(tmp_path):
    script = (
        f'import sys; sys.path.insert(0, {str(ROOT)!r})\n'
        'sys.modules["fcntl"] = None\n'
        'import mmdet_consistent\n'
        'from tests.support.toy import train_toy\n'
        'train_toy("run", epochs=1)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', script],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / 'run/epoch_1.pth').is_file()
    # Such a lock could outlive a killed process, so none is taken.
    assert f'files in {tmp_path}/run cannot be locked' in done.stdout
    assert not (tmp_path / 'run' / LOCK).exists()
