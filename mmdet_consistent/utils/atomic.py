"""Files that are either the old one or the new one, whole."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Union

from mmengine.fileio import LocalBackend, register_backend

SUFFIX = '.partial'


def write(path: Union[str, Path], content: bytes) -> None:
    """Write beside, then rename: a good file is never replaced by half of one.

    Args:
        path: File to write; its folder is made if need be.
        content: What it shall hold.

    Raises:
        OSError: Naming the file, its size and the room left, if it can't be
            written; an older file of that name is then untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + SUFFIX)
    try:
        with open(partial, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            error.errno,
            f'{os.strerror(error.errno or 0)}: writing {len(content) / 1e6:.1f} MB '
            f'with {free / 1e6:.1f} MB free; what was there before is untouched',
            str(path),
        ) from error
    # The new name must reach the disk too. Not every system can sync a folder.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written beside and renamed.

    For any mmengine hook that takes ``backend_args``::

        default_hooks = dict(checkpoint=dict(backend_args=dict(backend='atomic_local')))
    """

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write bytes to ``filepath``, whole or not at all."""
        write(filepath, obj)
