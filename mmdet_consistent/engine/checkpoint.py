"""Load checkpoints without executing them, and explain what is wrong with a bad one."""

import pickle
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional, Union

from mmengine.logging import print_log

from ..utils.errors import UserError
from .restricted_pickle import HAS_ALLOW_LIST, torch_load

_LIST = 'torch.serialization' if HAS_ALLOW_LIST else torch_load.__module__
RESUMABLE = ('meta', 'state_dict', 'message_hub', 'optimizer')


class CheckpointError(UserError, RuntimeError):
    """A checkpoint can't be used; the message names the file and suggests a fix."""


def load(path: Union[str, Path], map_location: Any = None) -> dict:
    """Load a local checkpoint without executing anything in it.

    Args:
        path: The file.
        map_location: As for ``torch.load``.

    Returns:
        The saved dictionary without ``meta['config']``, which mmengine would run as
        Python when it resumes.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, is not a checkpoint, or holds
            objects that are not on torch's allow-list.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint not found: {path}')
    name = f'{path} ({path.stat().st_size / 1e6:.1f} MB)'
    try:
        _verify_checksums(path, name)
        with warnings.catch_warnings():
            # torch's advice about pickle protocols: the errors below say more.
            warnings.filterwarnings('ignore', 'Detected pickle protocol')
            checkpoint = torch_load(path, map_location)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:
        is_pickles = isinstance(error, (pickle.UnpicklingError, ValueError))
        refused = ('Unsupported global', 'the file looks up')
        if is_pickles and any(text in str(error) for text in refused):
            raise CheckpointError(
                f'{name} holds objects that are not plain weights, and loading them '
                f'could run code: {_first_line(error)}. If you trust the file and its '
                f'class, call {_LIST}.add_safe_globals([TheClass]) before loading'
            ) from error
        raise CheckpointError(
            f'{name} is not a checkpoint, or was cut off while it was written or '
            f'copied: {_first_line(error)}. Use another one; tools/train.py --resume '
            'finds the last good one'
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{name} holds a {type(checkpoint).__name__}, not the dictionary of a '
            'checkpoint'
        )
    meta = checkpoint.get('meta')
    if isinstance(meta, dict) and meta.pop('config', None) is not None:
        print_log(
            f"{name}: meta['config'] is left out, which mmengine would run as Python",
            logger='current',
        )
    return checkpoint


def newest_good(candidates: Iterable[Path]) -> tuple[Optional[Path], list[str]]:
    """Find the first checkpoint from which training can resume.

    Args:
        candidates: Files, the preferred one first.

    Returns:
        The file, or None; and one sentence per bad file before it.
    """
    problems = []
    for path in candidates:
        try:
            check_resumable(load(path, map_location='cpu'), path)
        except (CheckpointError, OSError) as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def check_resumable(checkpoint: dict, path: Union[str, Path]) -> None:
    """Refuse a checkpoint that holds weights only.

    Raises:
        CheckpointError: If something is missing. The message names it.
    """
    absent = [key for key in RESUMABLE if key not in checkpoint]
    if absent:
        raise CheckpointError(
            f'{path} has no {", ".join(absent)}: training cannot resume from it. To '
            'start a new training with its weights, set load_from without resume'
        )


def _verify_checksums(path: Path, name: str) -> None:
    """Check what torch writes but does not check: a flipped bit would go unnoticed."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        bad = archive.testzip()
    if bad is not None:
        raise CheckpointError(
            f'{name} is damaged: the checksum of its record {bad!r} is wrong. Use '
            'another checkpoint, or copy it again'
        )


def _first_line(error: Exception) -> str:
    """Return the cause, without torch's advice to load the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # (Since torch 2.6 the cause comes last.)
    cause = [line for line in lines if 'WeightsUnpickler error: ' in line]
    lines = cause or [line for line in lines if 'weights_only' not in line] or lines
    text = lines[0] if lines else type(error).__name__
    text = text.split('WeightsUnpickler error: ')[-1].replace(
        'Unsupported global: ', ''
    )
    return text.split(' was not an allowed global')[0][:200].rstrip('. ')
