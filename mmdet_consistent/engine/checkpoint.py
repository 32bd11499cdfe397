"""Load checkpoints without executing them, and say what is wrong with a bad one."""

import pickle
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional, Union

from mmengine.logging import print_log

from ..utils.errors import UserError
from .restricted_pickle import HAS_ALLOW_LIST, torch_load

# The way to allow a class, as it stands in a message.
_ALLOW = 'torch.serialization.add_safe_globals([TheClass])'
if not HAS_ALLOW_LIST:
    _ALLOW = f'mmdet_consistent.engine.restricted_pickle.{_ALLOW.split(".", 2)[2]}'
RESUMABLE = ('meta', 'state_dict', 'message_hub', 'optimizer')


class CheckpointError(UserError, RuntimeError):
    """A checkpoint can't be used; the message names the file and the way out."""


def load(path: Union[str, Path], map_location: Any = None) -> dict:
    """Load a local checkpoint; nothing in the file is executed.

    Args:
        path: The file.
        map_location: As for ``torch.load``.

    Returns:
        What was saved, less the old ``meta['config']``, which mmengine would run
        as Python when it resumes.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, is no checkpoint, or holds
            objects that are not on torch's allow-list.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint not found: {path}')
    size = path.stat().st_size
    name = f'{path} ({size / 1e6:.1f} MB)'
    if zipfile.is_zipfile(path):
        _verify_checksums(path, name)
    try:
        with warnings.catch_warnings():
            # torch's advice about pickle protocols: the error below says more.
            warnings.filterwarnings('ignore', 'Detected pickle protocol')
            checkpoint = torch_load(path, map_location)
    except (pickle.UnpicklingError, ValueError) as error:
        if 'Unsupported global' in str(error) or 'the file looks up' in str(error):
            raise CheckpointError(
                f'{name} holds objects that are not plain weights, and loading them '
                f'could run code: {_first_line(error)}. If you trust the file and its '
                f'class, {_ALLOW} before loading allows it'
            ) from error
        raise CheckpointError(_damaged(name, error)) from error
    except (RuntimeError, EOFError, KeyError, AssertionError, TypeError) as error:
        raise CheckpointError(_damaged(name, error)) from error
    except (AttributeError, IndexError, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(_damaged(name, error)) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{name} holds a {type(checkpoint).__name__}, not the dictionary of a '
            'checkpoint'
        )
    return _harmless(checkpoint, name)


def newest_good(
    candidates: Iterable[Path],
) -> tuple[Optional[Path], list[str]]:
    """Find the first checkpoint that a training can go on from.

    Args:
        candidates: Files, the preferred one first.

    Returns:
        The file, or None; and a sentence for each one before it that is no good.
    """
    problems = []
    for path in candidates:
        try:
            checkpoint = load(path, map_location='cpu')
            check_resumable(checkpoint, path)
        except (CheckpointError, OSError) as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def check_resumable(checkpoint: dict, path: Union[str, Path]) -> None:
    """Refuse a checkpoint that holds weights only.

    Raises:
        CheckpointError: Naming what is not in it.
    """
    absent = [key for key in RESUMABLE if key not in checkpoint]
    if absent:
        raise CheckpointError(
            f'{path} has no {", ".join(absent)}: training cannot go on from it. To '
            'start a new training with its weights, set load_from and leave resume out'
        )


def _verify_checksums(path: Path, name: str) -> None:
    """Torch doesn't look at the checksums it writes: a flipped bit would pass."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise CheckpointError(_damaged(name, error)) from error
    if bad is not None:
        raise CheckpointError(
            f'{name} is damaged: the checksum of its record {bad!r} is wrong. Take '
            'another checkpoint, or copy it again'
        )


def _harmless(checkpoint: dict, name: str) -> dict:
    meta = checkpoint.get('meta')
    if isinstance(meta, dict) and meta.pop('config', None) is not None:
        print_log(
            f"{name}: meta['config'] is left out, which mmengine would run as Python",
            logger='current',
        )
    return checkpoint


def _damaged(name: str, error: Exception) -> str:
    return (
        f'{name} is no checkpoint, or was cut off while it was written or copied: '
        f'{_first_line(error)}. Take another one; tools/train.py --resume finds the '
        'last good one by itself'
    )


def _first_line(error: Exception) -> str:
    """The cause, without torch's advice to load the file unsafely."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # (Since torch 2.6 what is wrong comes last of all.)
    cause = [line for line in lines if 'WeightsUnpickler error: ' in line]
    lines = cause or [line for line in lines if 'weights_only' not in line] or lines
    text = lines[0] if lines else type(error).__name__
    text = text.split('WeightsUnpickler error: ')[-1].replace(
        'Unsupported global: ', ''
    )
    return text.split(' was not an allowed global')[0][:200].rstrip('. ')
