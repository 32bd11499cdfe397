"""What mmengine needs to know before our configs and checkpoints work with it."""

from typing import Any

import numpy as np
from mmdet.models.dense_heads import SSDHead
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import HistoryBuffer

from ..utils.configs import install_prefix
from .checkpoint import install_loaders
from .restricted_pickle import add_safe_globals


def apply() -> None:
    """Make the package known to mmengine. Safe to call more than once.

    * ``_base_ = 'mmdet_consistent::…'`` and mmengine's hub find our configs.
    * mmdet 3.2 and 3.3 look at ``head.loss_cls`` when they predict, which SSD's
      head hasn't: the baseline would train, but not be evaluated.
    * Since torch 2.6 ``torch.load`` refuses every class that is not on its
      allow-list. mmengine's checkpoints hold its message hub (``HistoryBuffer``
      and numpy scalars), so resuming fails unless exactly these are allowed.
    * mmengine's loaders are replaced by ones that never execute what is in a
      file, and that say what is wrong with a damaged one. (Before torch 2.4, which
      is the first to have an allow-list, by one of our own.)
    """
    if not hasattr(SSDHead, 'loss_cls'):
        SSDHead.loss_cls = None
    MODULE2PACKAGE.setdefault('mmdet_consistent', 'mmdet_consistent')
    install_prefix()
    add_safe_globals(_checkpoint_globals())
    install_loaders()


def _history_method(owner: Any, name: str) -> Any:
    """Stand in for the ``getattr`` that a pickled ``HistoryBuffer`` calls.

    A HistoryBuffer keeps its statistics, such as ``HistoryBuffer.mean``, and
    pickle writes them as ``getattr(HistoryBuffer, 'mean')``. The true ``getattr``
    must not be on the list: ``getattr(getattr, '__self__')`` is the module
    ``builtins``, and from there a file reaches ``exec``.

    Raises:
        ValueError: For any other owner or name.
    """
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise ValueError(
            f'the file looks up {name!r} of {owner!r}; only the statistics of '
            "mmengine's HistoryBuffer are allowed"
        )
    return getattr(owner, name)


# torch finds what it may call by module and name. Its way to list a function under
# another name, a tuple, came later than the list itself.
_history_method.__module__ = 'builtins'
_history_method.__name__ = _history_method.__qualname__ = 'getattr'


def _checkpoint_globals() -> list:
    """The classes and functions that mmengine's own checkpoints refer to."""
    try:  # numpy >= 2
        from numpy._core import multiarray
    except ImportError:
        from numpy.core import multiarray

    dtypes = ('float64', 'float32', 'int64', 'int32', 'bool', 'uint32')
    return [
        HistoryBuffer,
        _history_method,
        np.ndarray,
        np.dtype,
        multiarray.scalar,
        multiarray._reconstruct,
        *(type(np.dtype(name)) for name in dtypes),
    ]
