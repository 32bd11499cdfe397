"""What mmengine needs to know before our configs and checkpoints work with it."""

import numpy as np
import torch
from mmengine.config.utils import MODULE2PACKAGE


def apply() -> None:
    """Make the package known to mmengine. Safe to call more than once.

    * ``_base_ = 'mmdet_consistent::…'`` is looked up in a table of mmengine's.
    * Since torch 2.6 ``torch.load`` refuses every class that is not on its
      allow-list. mmengine's checkpoints hold its message hub (``HistoryBuffer``
      and numpy scalars), so resuming fails unless exactly these are allowed.
      Files stay loaded with ``weights_only=True``: nothing in them is executed.
    """
    MODULE2PACKAGE.setdefault('mmdet_consistent', 'mmdet_consistent')
    if hasattr(torch.serialization, 'add_safe_globals'):
        torch.serialization.add_safe_globals(_checkpoint_globals())


def _checkpoint_globals() -> list:
    """The classes and functions that mmengine's own checkpoints refer to."""
    from mmengine.logging import HistoryBuffer

    try:  # numpy >= 2
        from numpy._core import multiarray
    except ImportError:
        from numpy.core import multiarray

    dtypes = ('float64', 'float32', 'int64', 'int32', 'bool', 'uint32')
    # HistoryBuffer pickles its statistics as bound built-in look-ups.
    return [
        HistoryBuffer,
        getattr,
        np.ndarray,
        np.dtype,
        multiarray.scalar,
        multiarray._reconstruct,
        *(type(np.dtype(name)) for name in dtypes),
    ]
