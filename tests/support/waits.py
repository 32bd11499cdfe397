"""Notes every operation that would make the host wait for a GPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
WAITS = {
    aten.nonzero.default,
    aten._local_scalar_dense.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.unique_dim.default,
    aten._unique2.default,
}


class Waits(TorchDispatchMode):
    """Notes reads of a tensor's values, and lists that are copied to a device.

    Attributes:
        found: Name of each such operation.
    """

    def __init__(self):
        super().__init__()
        self.found = []
        self.patch = pytest.MonkeyPatch()

    def __enter__(self):
        for owner, name in (
            (torch, 'tensor'),
            (torch, 'as_tensor'),
            (torch.Tensor, 'new_tensor'),
        ):
            self.patch.setattr(owner, name, self._noting(getattr(owner, name), name))
        return super().__enter__()

    def __exit__(self, *error):
        self.patch.undo()
        return super().__exit__(*error)

    def _noting(self, function, name):
        def noted(*args, **kwargs):
            data = args[1] if name == 'new_tensor' else args[0]
            on_device = name == 'new_tensor' or kwargs.get('device') is not None
            if on_device and not isinstance(data, torch.Tensor):
                self.found.append(name)
            return function(*args, **kwargs)

        return noted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_)
        if by_mask:
            indices = args[1]
            by_mask = any(i is not None and i.dtype == torch.bool for i in indices)
        if func in WAITS or by_mask:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))
