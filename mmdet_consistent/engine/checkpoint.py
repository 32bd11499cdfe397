"""Load checkpoints without executing them, and explain what is wrong with a bad one."""

import hashlib
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Optional, Union
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch
from mmdet.models.dense_heads import SSDHead
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from ..utils.errors import UserError
from .restricted_pickle import (
    ALLOW_LIST,
    MMENGINE_OBJECTS,
    add_safe_globals,
    torch_load,
)

RESUMABLE = ('meta', 'state_dict', 'message_hub', 'optimizer')
TRAINED = ('state_dict', 'ema_state_dict', 'optimizer')


class CheckpointError(UserError, RuntimeError):
    """A checkpoint can't be used. The message names the file and suggests a fix."""


class SpoiltWeightsError(CheckpointError):
    """Weights or optimizer states are not finite. The message names one."""


def make_safe() -> None:
    """Let mmengine load and resume checkpoints without executing them.

    Our tools call this; importing ``mmdet_consistent`` does not. For other programs,
    import :mod:`mmdet_consistent.engine.safe`. Calling it again changes nothing. It
    applies to the whole process:

    * mmengine's loaders of files and URLs are replaced by :func:`load`, which executes
      nothing and explains what is wrong with a damaged file.
    * The types in mmengine's own checkpoints (its message hub holds
      ``HistoryBuffer`` and numpy scalars) join torch's allow-list. Without them
      ``torch.load`` refuses these files since torch 2.6, so that no training resumes.
    * ``SSDHead.loss_cls`` exists: mmdet 3.2 and 3.3 read it to predict, but SSD's
      head has none, so mmdet's SSD could be trained, but not evaluated.
    """
    if not hasattr(SSDHead, 'loss_cls'):
        SSDHead.loss_cls = None
    add_safe_globals(MMENGINE_OBJECTS)
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    for prefix in ('http://', 'https://'):
        CheckpointLoader.register_scheme(prefix, load_from_http, force=True)
    # The torchvision:// and open-mmlab:// loaders call it by this name.
    mmengine_checkpoint.load_from_http = load_from_http


def local_path(checkpoint: Union[str, Path]) -> Optional[Path]:
    """Return the file that a path or ``file://`` names. None for other addresses."""
    name = str(checkpoint)
    if name.startswith('file://'):
        return Path(url2pathname(urlparse(name).path))
    if CheckpointLoader._get_checkpoint_loader(name) is CheckpointLoader._schemes['']:
        return Path(name).expanduser()
    return None


def is_there(checkpoint: Union[str, Path]) -> bool:
    """Return whether a checkpoint is a file, or has an address that mmengine loads."""
    path = local_path(checkpoint)
    return path is None or path.is_file()


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a file. The name of this function is logged from its tenth letter on."""
    return load(local_path(filename) or filename, map_location)


def load_from_http(
    filename: str,
    map_location: Any = None,
    model_dir: Optional[str] = None,
    progress: bool = True,
) -> dict:
    """Load a checkpoint from a URL: rank 0 downloads it, every rank reads the copy."""
    # torch.hub.load_state_dict_from_url would bypass our loader.
    folder = Path(model_dir or Path(torch.hub.get_dir()) / 'checkpoints')
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _cached_name(filename)
    if get_rank() > 0:
        barrier()
    if not path.is_file():
        torch.hub.download_url_to_file(filename, str(path), progress=progress)
    if get_rank() == 0:
        barrier()
    return load(path, map_location)


def _cached_name(address: str) -> str:
    """Return a name that differs between addresses, as many end in epoch_12.pth."""
    path = Path(urlparse(address).path)
    if re.search(r'-[0-9a-f]{8,}\.', path.name):  # a hash: it names the content
        return path.name
    return (
        f'{path.stem}-{hashlib.sha256(address.encode()).hexdigest()[:8]}{path.suffix}'
    )


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
        if 'Unsupported global' in str(error):
            raise CheckpointError(
                f'{name} holds objects that are not plain weights, and loading them '
                f'could run code: {_cause(error)}. If you trust the file and its '
                f'class, call {ALLOW_LIST}.add_safe_globals([TheClass]) before loading'
            ) from error
        raise CheckpointError(
            f'{name} is not a checkpoint, or was cut off while it was written or '
            f'copied: {_cause(error)}. Use another one; tools/train.py --resume finds '
            'the last good one'
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


def newest_good(
    candidates: Iterable[Path], constants: frozenset[str] = frozenset()
) -> tuple[Optional[Path], list[str]]:
    """Find the first checkpoint from which training can resume.

    Args:
        candidates: Files, the preferred one first.
        constants: See :func:`spoilt`.

    Returns:
        The file, or None; and one sentence per bad file before it.
    """
    problems: list[str] = []
    for path in candidates:
        try:
            check_resumable(load(path, map_location='cpu'), path, constants)
            return path, problems
        except (CheckpointError, OSError) as error:
            problems.append(str(error))
    return None, problems


def check_resumable(
    checkpoint: dict,
    path: Union[str, Path],
    constants: frozenset[str] = frozenset(),
) -> None:
    """Refuse a checkpoint that holds weights only, or some that are not finite.

    Args:
        checkpoint: Content of the file.
        path: The file, for the message.
        constants: See :func:`spoilt`.

    Raises:
        CheckpointError: If something is missing or not finite. The message names it.
    """
    absent = [key for key in RESUMABLE if key not in checkpoint]
    if absent:
        raise CheckpointError(
            f'{path} has no {", ".join(absent)}: training cannot resume from it. To '
            'start a new training with its weights, set load_from without resume'
        )
    found = spoilt(checkpoint, constants)
    if found:
        raise SpoiltWeightsError(
            f'{path} cannot be resumed from: {found}. Use an earlier checkpoint'
        )


def spoilt(checkpoint: dict, constants: frozenset[str] = frozenset()) -> str:
    """Say which weights or optimizer states of a checkpoint are not finite.

    Args:
        checkpoint: Content of a file, or what is to be one.
        constants: Names of weights that need not be finite.

    Returns:
        A clause that names the first one; '' if all are finite.
    """
    parts = {name: checkpoint[name] for name in TRAINED if name in checkpoint}
    bad = [name for name in not_finite(parts) if _bare(name) not in constants]
    more = f' (and {len(bad) - 1} more)' if len(bad) > 1 else ''
    return f'{_bare(bad[0])}{more} holds NaN or infinite values' if bad else ''


def not_finite(values: Any, name: str = '') -> Iterator[str]:
    """Yield the names of nested tensors that hold NaN or infinite values."""
    if torch.is_tensor(values):
        if values.is_floating_point() and not values.isfinite().all():
            yield name
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from not_finite(value, f'{name}.{key}' if name else str(key))


def _bare(name: str) -> str:
    """Return the name of a weight in its model."""
    part, _, rest = name.partition('.')
    return name if part == 'optimizer' else rest.removeprefix('module.')


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


def _cause(error: Exception) -> str:
    """Return one line, without torch's advice to load the file unsafely."""
    # (Since torch 2.6 the cause comes last.)
    text = re.split('WeightsUnpickler error: |Unsupported global: ', str(error))[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if 'weights_only' not in line] or lines
    text = lines[0] if lines else type(error).__name__
    return text.split(' was not an allowed global')[0][:200].rstrip('. ')
