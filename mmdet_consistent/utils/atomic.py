"""Write files that are always complete: either the old or the new content."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Union

from mmengine.fileio import LocalBackend, register_backend

SUFFIX = '.partial'


def write(path: Union[str, Path], content: bytes) -> None:
    """Write beside the file, then rename, so that no half file replaces a good one.

    Args:
        path: File to write; missing folders are created.
        content: New content of the file.

    Raises:
        OSError: If the file can't be written; an older one is then untouched. The
            message names the file, its size and the free space.
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
            f'with {free / 1e6:.1f} MB free; the previous content is untouched',
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
    """mmengine's backend for local files, but with atomic writes.

    For any mmengine hook that takes ``backend_args``::

        default_hooks = dict(checkpoint=dict(backend_args=dict(backend='atomic_local')))
    """

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write bytes to ``filepath``, completely or not at all."""
        write(filepath, obj)
