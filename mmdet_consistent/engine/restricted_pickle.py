"""Load checkpoints by an allow-list, with every torch.

torch has an allow-list of its own since 2.4. Before that, this module replaces
``pickle`` in ``torch.load(…, pickle_module=…)``: its unpickler finds nothing but what
torch itself allows for plain weights, and what is on the list here.
"""

import _codecs
import _compat_pickle
import pickle
import sys
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import _weights_only_unpickler

HAS_ALLOW_LIST = hasattr(torch.serialization, 'add_safe_globals')
# The module whose add_safe_globals() a user calls.
ALLOW_LIST = 'torch.serialization' if HAS_ALLOW_LIST else __name__
# numpy 2 has them in _core, numpy 1 in core (and there may be an empty _core).
_core: Any = getattr(np, '_core', None)
if not hasattr(_core, 'multiarray'):
    _core = sys.modules['numpy.core']
multiarray = _core.multiarray


def _history_method(owner: Any, name: str) -> Any:
    """Replace the ``getattr`` that a pickled ``HistoryBuffer`` calls.

    A HistoryBuffer keeps references to its statistics, such as
    ``HistoryBuffer.mean``, and pickle writes them as ``getattr(HistoryBuffer,
    'mean')``. The true ``getattr`` must not be allowed: ``getattr(getattr,
    '__self__')`` is the module ``builtins``, through which a file reaches ``exec``.

    Raises:
        pickle.UnpicklingError: For any other owner or name.
    """
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(
            f'Unsupported global: the file looks up {name!r} of {owner!r}; only the '
            "statistics of mmengine's HistoryBuffer are allowed"
        )
    return getattr(owner, name)


# torch looks up functions by module and name. Listing one under another name, as a
# tuple, is not possible in torch 2.4.
_history_method.__module__ = 'builtins'
_history_method.__name__ = _history_method.__qualname__ = 'getattr'

# The classes and functions that mmengine's own checkpoints refer to.
MMENGINE_OBJECTS = [
    HistoryBuffer,
    _history_method,
    np.ndarray,
    np.dtype,
    multiarray.scalar,
    multiarray._reconstruct,
    _codecs.encode,  # bytes of protocol 2; torch allows it by itself from 2.5 on
    *(
        type(np.dtype(name))
        for name in ('float64', 'float32', 'int64', 'int32', 'bool', 'uint32')
    ),
]
# Full name of a class or function: the object.
_ALLOWED: dict[str, Any] = {}


def add_safe_globals(items: list) -> None:
    """Allow classes and functions in checkpoints, as torch's function of that name."""
    if HAS_ALLOW_LIST:
        known = torch.serialization.get_safe_globals()
        # (torch 2.4 keeps a list, where a second entry would stay.)
        torch.serialization.add_safe_globals([x for x in items if x not in known])
    else:
        _ALLOWED.update({f'{x.__module__}.{x.__qualname__}': x for x in items})


if not HAS_ALLOW_LIST:
    add_safe_globals(MMENGINE_OBJECTS)


def torch_load(file: Any, map_location: Any = None) -> Any:
    """Call ``torch.load`` so that nothing in the file is executed.

    Tensors, plain containers, :data:`MMENGINE_OBJECTS` and whatever the program has
    allowed are loaded; the allow-list stays as it was.

    Raises:
        pickle.UnpicklingError: For anything else ("Unsupported global").
    """
    if not HAS_ALLOW_LIST:
        return torch.load(
            file, map_location=map_location, pickle_module=sys.modules[__name__]
        )
    # (Leaving torch's own context manager takes entries away that were there before.)
    # (torch 2.4 returns its own list, which grows below, not a copy.)
    before = list(torch.serialization.get_safe_globals())
    torch.serialization.add_safe_globals(MMENGINE_OBJECTS)
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


class Unpickler(pickle.Unpickler):
    """An unpickler that finds nothing but what is allowed."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the object of that name.

        Raises:
            pickle.UnpicklingError: If it isn't on the list.
        """
        # Python 2's names, which torch's pickles (protocol 2) use.
        module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        full_name = f'{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}'
        allowed = {**_weights_only_unpickler._get_allowed_globals(), **_ALLOWED}
        if full_name in allowed:
            return allowed[full_name]
        raise pickle.UnpicklingError(
            f'Unsupported global: GLOBAL {full_name} was not an allowed global'
        )


def load(file: Any, **options: Any) -> Any:
    """Load as ``pickle.load``, which torch calls for files of its old format."""
    return Unpickler(file, **options).load()
