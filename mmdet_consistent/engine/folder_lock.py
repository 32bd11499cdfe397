"""One training a folder at a time."""

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import Optional, Union

from ..utils.errors import UserError

NAME = 'training.lock'
# What a system says when somebody else has the lock.
HELD = (errno.EACCES, errno.EAGAIN)


class FolderInUseError(UserError, RuntimeError):
    """Another process is training in this folder."""


class FolderLock:
    """Holds a folder for this process, until it ends (however it ends) or lets go.

    It is the system's lock of a file, so a killed process holds nothing, and forks
    such as a data loader's workers don't hold it either.
    """

    def __init__(self, folder: Union[str, Path]) -> None:
        self.path = Path(folder, NAME)
        self._descriptor: Optional[int] = None

    def acquire(self) -> bool:
        """Take it.

        Returns:
            Whether files can be locked there at all; without, nobody is kept out.

        Raises:
            FolderInUseError: If another process holds it; says which.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors='replace').strip()
            os.close(descriptor)
            if error.errno not in HELD:
                return False
            raise FolderInUseError(
                f'{self.path.parent} is in use by another training '
                f'({holder or "it has not said which"}): two would overwrite each '
                'other. Wait for it or end it (it may have outlived the program that '
                'started it), or choose another --work-dir'
            ) from error
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f'process {os.getpid()}, {socket.gethostname()}'.encode())
        return True

    def release(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()
