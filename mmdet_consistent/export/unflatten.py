"""``Tensor.unflatten`` for the exporter of torch 2.0, which doesn't know it."""

import torch
from torch.onnx import register_custom_op_symbolic, symbolic_helper


def register_unflatten(opset: int) -> None:
    """Teach the exporter ``unflatten`` where it has none. Safe to call again."""
    if tuple(int(part) for part in torch.__version__.split('.')[:2]) < (2, 1):
        register_custom_op_symbolic('aten::unflatten', _unflatten, opset)


@symbolic_helper.parse_args('v', 'i', 'is')
def _unflatten(g, value, dim: int, sizes: list[int]):
    """``value`` reshaped: its axis ``dim`` becomes several of the given sizes."""
    # (torch looks at the type of `g`, whose class is private: it is left unsaid.)
    rank = symbolic_helper._get_tensor_rank(value)
    dim %= rank
    # 0 copies the axis of that place, so only what comes after `dim` is looked up.
    front = g.op('Constant', value_t=torch.tensor([0] * dim + sizes))
    shape = g.op('Shape', value)
    back = symbolic_helper._slice_helper(
        g, shape, axes=[0], starts=[dim + 1], ends=[rank]
    )
    parts = [front, back] if dim + 1 < rank else [front]
    return g.op('Reshape', value, g.op('Concat', *parts, axis_i=0))
