"""Loading by an allow-list, with every torch.

From 2.4 on torch has a list of its own. Before that, this module stands in for
``pickle`` in ``torch.load(…, pickle_module=…)``: its unpickler looks nothing up but
what torch itself allows for plain weights, and what :func:`add_safe_globals` adds.
"""

import _codecs
import _compat_pickle
import pickle
import sys
from typing import Any

import torch
from torch import _weights_only_unpickler

HAS_ALLOW_LIST = hasattr(torch.serialization, 'add_safe_globals')
# (module, name) of a class or function: the object.
_ADDED: dict[tuple[str, str], Any] = {
    ('_codecs', 'encode'): _codecs.encode,  # bytes, as protocol 2 writes them
}


def add_safe_globals(items: list) -> None:
    """Allow classes and functions in checkpoints, as torch's function of that name."""
    if HAS_ALLOW_LIST:
        torch.serialization.add_safe_globals(items)
        return
    _ADDED.update({(item.__module__, item.__qualname__): item for item in items})


def torch_load(file: Any, map_location: Any = None) -> Any:
    """``torch.load`` that executes nothing of the file.

    Raises:
        pickle.UnpicklingError: For what isn't allowed ("Unsupported global").
    """
    if HAS_ALLOW_LIST:
        return torch.load(file, map_location=map_location, weights_only=True)
    return torch.load(
        file, map_location=map_location, pickle_module=sys.modules[__name__]
    )


class Unpickler(pickle.Unpickler):
    """An unpickler that finds what is on the list, by its name, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The object of that name.

        Raises:
            pickle.UnpicklingError: If it isn't on the list.
        """
        # The names of Python 2, by which torch's pickles (protocol 2) go.
        key = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
        key = _compat_pickle.IMPORT_MAPPING.get(key[0], key[0]), key[1]
        if key in _ADDED:
            return _ADDED[key]
        torchs_own = _weights_only_unpickler._get_allowed_globals()
        if '.'.join(key) in torchs_own:
            return torchs_own['.'.join(key)]
        raise pickle.UnpicklingError(
            f'Unsupported global: GLOBAL {".".join(key)} was not an allowed global'
        )


def load(file: Any, **options: Any) -> Any:
    """As ``pickle.load``; torch calls it for files of its old format."""
    return Unpickler(file, **options).load()
