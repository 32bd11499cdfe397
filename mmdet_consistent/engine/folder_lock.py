"""Lets only one training at a time write to a work folder."""

import os
import socket
import warnings
from pathlib import Path
from typing import Union
from weakref import WeakValueDictionary

from ..utils.errors import UserError

with warnings.catch_warnings():
    # It warns where the system has no file locks; we warn when a training needs one.
    warnings.simplefilter('ignore')
    from filelock import FileLock, SoftFileLock, Timeout

LOCK, HOLDER = 'training.lock', 'training.holder'


class FolderInUseError(UserError, RuntimeError):
    """Another process is training in this folder."""


class FolderLock:
    """Holds a folder for this process until it is released or the process ends.

    It is the operating system's lock of a file, so a killed process holds nothing.
    Forked processes, such as data loader workers, don't hold it either (before
    filelock 3.32 they do until they notice that their parent has died).
    """

    # A training that this process has interrupted, as in a notebook, gives way to the
    # next: it may be alive in a traceback.
    _of_this_process: 'WeakValueDictionary[Path, FolderLock]' = WeakValueDictionary()

    def __init__(self, folder: Union[str, Path]) -> None:
        self.folder = Path(folder)
        self._lock = FileLock(self.folder / LOCK, thread_local=False)

    def acquire(self) -> bool:
        """Take the lock.

        Returns:
            False if files in the folder cannot be locked; then nobody is kept out.

        Raises:
            FolderInUseError: If another process holds it. The message names it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        holder, key = self.folder / HOLDER, self.folder.resolve()
        if key in self._of_this_process:
            self._of_this_process[key].release()
        if isinstance(self._lock, SoftFileLock):
            return False  # A mere file, which would outlive a killed process.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                self._lock.acquire(timeout=0)
        except Timeout:
            name = holder.read_text() if holder.is_file() else 'unknown process'
            raise FolderInUseError(
                f'{self.folder} is in use by another training ({name}): two would '
                'overwrite each other. Wait for it or end it (it may have outlived '
                'the program that started it), or choose another --work-dir'
            ) from None
        except (OSError, NotImplementedError):
            return False
        if isinstance(self._lock, SoftFileLock):  # filelock's own fall-back
            self.release()
            return False
        self._of_this_process[key] = self
        holder.write_text(f'process {os.getpid()}, {socket.gethostname()}')
        return True

    def release(self) -> None:
        """Release the lock, if it is held."""
        self._lock.release(force=True)
