"""torchvision's compiled operators, where torchvision is installed and loads."""

from functools import lru_cache
from typing import Any

import torch


@lru_cache(maxsize=1)
def torchvision_operators() -> Any:
    """``torch.ops.torchvision``, or None.

    PyPI's torchvision does not load beside a CPU build of PyTorch, for instance: it
    raises RuntimeError.
    """
    try:
        import torchvision  # noqa: F401

        torch.ops.torchvision.nms  # noqa: B018
    except Exception:  # whatever is wrong with it, PyTorch can do without
        return None
    return torch.ops.torchvision
