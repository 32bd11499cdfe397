"""Safe checkpoint loading for every model in the process, on request."""

from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlparse

import torch
from mmdet.models.dense_heads import SSDHead
from mmengine.dist import barrier, get_rank
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from .checkpoint import load
from .restricted_pickle import MMENGINE_OBJECTS, add_safe_globals


def make_safe() -> None:
    """Let mmengine load and resume checkpoints without executing them.

    Our tools call this; importing ``mmdet_consistent`` does not. For other programs,
    import :mod:`mmdet_consistent.engine.safe`. Calling it again changes nothing. It
    applies to the whole process:

    * mmengine's loaders of files and URLs are replaced by :func:`.checkpoint.load`,
      which executes nothing and explains what is wrong with a damaged file.
    * The types in mmengine's own checkpoints (its message hub holds
      ``HistoryBuffer`` and numpy scalars) join torch's allow-list. Without them
      ``torch.load`` refuses these files since torch 2.6, so that no training resumes.
    * ``SSDHead.loss_cls`` exists: mmdet 3.2 and 3.3 read it to predict, but SSD's
      head has none, so mmdet's SSD could be trained, but not evaluated.
    """
    if not hasattr(SSDHead, 'loss_cls'):
        SSDHead.loss_cls = None
    add_safe_globals(MMENGINE_OBJECTS)
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(
        prefixes=('http://', 'https://'), loader=load_from_http, force=True
    )
    # The torchvision:// and open-mmlab:// loaders call it by this name.
    mmengine_checkpoint.load_from_http = load_from_http


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a file; mmengine logs this function's name from the tenth letter on."""
    return load(filename, map_location)


def load_from_http(
    filename: str,
    map_location: Any = None,
    model_dir: Optional[str] = None,
    progress: bool = True,
) -> dict:
    """Load a checkpoint from a URL: rank 0 downloads it, every rank reads the copy."""

    def fetch() -> dict:
        # torch.hub.load_state_dict_from_url would bypass our loader.
        folder = Path(model_dir or Path(torch.hub.get_dir()) / 'checkpoints')
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / Path(urlparse(filename).path).name
        if not path.is_file():
            torch.hub.download_url_to_file(filename, str(path), progress=progress)
        return load(path, map_location)

    checkpoint = fetch() if get_rank() == 0 else None
    barrier()
    return fetch() if checkpoint is None else checkpoint
