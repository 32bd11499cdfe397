"""Notes every operation that would make the host wait for a GPU."""

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
    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_)
        if by_mask:
            indices = args[1]
            by_mask = any(i is not None and i.dtype == torch.bool for i in indices)
        if func in WAITS or by_mask:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))
