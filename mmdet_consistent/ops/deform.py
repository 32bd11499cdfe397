"""Deformable convolution, with and without a mask."""

from typing import NamedTuple, Optional

import torch
from torch import Tensor

from .sampling import at_least_float32, padded_corners, weighted_rows
from .torchvision import torchvision_operators


class Shape(NamedTuple):
    """Geometry of a deformable convolution. Pairs are (vertical, horizontal)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    offset_groups: int


def sampling_points(
    input: Tensor, offset: Tensor, weight: Tensor, shape: Shape
) -> tuple[Tensor, Tensor]:
    """Return the kernel points' y and x: (B, groups, KH, KW, OH, OW) each."""
    kernel_h, kernel_w = weight.shape[2:]
    out_h, out_w = offset.shape[2:]
    offset = offset.reshape(input.shape[0], -1, kernel_h, kernel_w, 2, out_h, out_w)

    def grid(axis: int, points: int, outputs: int) -> Tensor:
        starts = torch.arange(outputs, device=offset.device) * shape.stride[axis]
        steps = torch.arange(points, device=offset.device) * shape.dilation[axis]
        return (starts - shape.padding[axis] + steps[:, None]).to(offset)

    y, x = grid(0, kernel_h, out_h), grid(1, kernel_w, out_w)
    dy, dx = offset.unbind(4)
    return y[:, None, :, None] + dy, x[:, None] + dx


def _convolve(
    input: Tensor, offset: Tensor, mask: Optional[Tensor], weight: Tensor, shape: Shape
) -> Tensor:
    """Convolve. Differentiable by all tensors."""
    batch, channels, height, width = input.shape
    y, x = sampling_points(input, offset, weight, shape)
    rows_of, of_rows = padded_corners(y, height)
    columns_of, of_columns = padded_corners(x, width)
    pixels = (rows_of[..., :, None] * width + columns_of[..., None, :]).flatten(-2)
    weights = (of_rows[..., :, None] * of_columns[..., None, :]).flatten(-2)
    if mask is not None:
        weights = weights * mask.reshape(y.shape)[..., None]
    groups = shape.offset_groups
    first = torch.arange(groups, device=input.device) * (height * width)
    pixels = pixels + first.view(-1, 1, 1, 1, 1, 1)
    rows = input.reshape(batch, groups, channels // groups, -1).transpose(2, 3)
    kernels = weight.reshape(shape.groups, -1, weight[0].numel())
    outputs = []
    for image in range(batch):
        sampled = weighted_rows(
            rows[image].flatten(0, 1), pixels[image], weights[image]
        )
        # (groups, KH, KW, OH, OW, C / groups): channels first, one column per output.
        columns = sampled.permute(0, 5, 1, 2, 3, 4).reshape(
            shape.groups, kernels.shape[2], -1
        )
        outputs.append((kernels @ columns).view(-1, *offset.shape[2:]))
    return torch.stack(outputs)


def _forward(
    input: Tensor, offset: Tensor, mask: Optional[Tensor], weight: Tensor, shape: Shape
) -> Tensor:
    """Convolve, by torchvision's operator if there is one."""
    operators = torchvision_operators()
    if operators is not None:
        tensors = _for_torchvision(input, offset, mask, weight)
        return operators.deform_conv2d(*tensors, *_numbers(shape, mask))
    tensors = [at_least_float32(x.detach()) for x in (input, offset, weight)]
    if mask is not None:
        mask = at_least_float32(mask.detach())
    return _convolve(tensors[0], tensors[1], mask, tensors[2], shape)


def _for_torchvision(
    input: Tensor, offset: Tensor, mask: Optional[Tensor], weight: Tensor
) -> list[Tensor]:
    """The tensors as torchvision's operator takes them. It always adds a bias."""
    mask = input.new_zeros(0) if mask is None else mask
    bias = input.new_zeros(len(weight))
    return [x.contiguous() for x in (input, weight, offset, mask, bias)]


def _numbers(shape: Shape, mask: Optional[Tensor]) -> tuple:
    """The options as torchvision's operator takes them."""
    pairs = (*shape.stride, *shape.padding, *shape.dilation)
    return (*pairs, shape.groups, shape.offset_groups, mask is not None)


def _backward(
    grad_output: Tensor,
    input: Tensor,
    offset: Tensor,
    mask: Optional[Tensor],
    weight: Tensor,
    shape: Shape,
    wanted: str,
) -> dict[str, Tensor]:
    """Derivatives by the tensors that are wanted: some of input, offset and so on."""
    operators = torchvision_operators()
    if operators is not None:
        grads = operators._deform_conv2d_backward(
            grad_output.contiguous(),
            *_for_torchvision(input, offset, mask, weight),
            *_numbers(shape, mask),
        )
        found = dict(zip(('input', 'weight', 'offset', 'mask'), grads))
        y, x = sampling_points(input, offset, weight, shape)
        (height, width), inside = input.shape[2:], (y > -1) & (x > -1)
        # mmcv differentiates by an offset only there; torchvision also where a point
        # is exactly one pixel outside.
        inside &= (y < height) & (x < width)
        both = inside[:, :, :, :, None].expand(*inside.shape[:4], 2, *inside.shape[4:])
        found['offset'] = found['offset'] * both.reshape(offset.shape)
        return found
    tensors = dict(input=input, offset=offset, mask=mask, weight=weight)
    leaves = {
        name: at_least_float32(tensor.detach())
        for name, tensor in tensors.items()
        if tensor is not None
    }
    for name in wanted.split():
        leaves[name].requires_grad_()
    with torch.enable_grad():
        mask = leaves.get('mask')
        output = _convolve(
            leaves['input'], leaves['offset'], mask, leaves['weight'], shape
        )
    chosen = [leaves[name] for name in wanted.split()]
    grads = torch.autograd.grad(output, chosen, grad_output.to(output))
    return dict(zip(wanted.split(), grads))


def _deform_shape(options: dict[str, int]) -> Shape:
    """The geometry, from the options of mmcv's deform_conv functions."""
    return Shape(
        stride=(options['dH'], options['dW']),
        padding=(options['padH'], options['padW']),
        dilation=(options['dilationH'], options['dilationW']),
        groups=options['group'],
        offset_groups=options['deformable_group'],
    )


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **options: int,
) -> None:
    """Convolve at moved points.

    Args:
        input: (B, C, H, W).
        weight: (O, C / group, KH, KW).
        offset: (B, deformable_group · KH · KW · 2, OH, OW), y and x of each point.
        output: (B, O, OH, OW); receives the result.
        columns: Not used.
        ones: Not used.
        **options: mmcv's: dH, dW, padH, padW, dilationH, dilationW, group and
            deformable_group; others are not used.
    """
    shape = _deform_shape(options)
    output.copy_(_forward(input, offset, None, weight, shape).view_as(output))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **options: int,
) -> None:
    """Compute the derivatives by input and offset into grad_input and grad_offset.

    The others are those of :func:`deform_conv_forward`.
    """
    shape = _deform_shape(options)
    tensors = (grad_output, input, offset, None, weight)
    grads = _backward(*tensors, shape, 'input offset')
    grad_input.copy_(grads['input'])
    grad_offset.copy_(grads['offset'])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    **options: int,
) -> None:
    """Add the derivatives by the weight, times the option ``scale``, to grad_weight.

    The others are those of :func:`deform_conv_forward`.
    """
    shape = _deform_shape(options)
    # They don't depend on the weight, which is not passed: its shape is enough.
    tensors = (grad_output, input, offset, None, grad_weight)
    grads = _backward(*tensors, shape, 'weight')
    grad_weight += options['scale'] * grads['weight']


def _modulated_shape(options: dict[str, int]) -> Shape:
    """The geometry, from the options of mmcv's modulated_deform_conv functions."""
    return Shape(
        stride=(options['stride_h'], options['stride_w']),
        padding=(options['pad_h'], options['pad_w']),
        dilation=(options['dilation_h'], options['dilation_w']),
        groups=options['group'],
        offset_groups=options['deformable_group'],
    )


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    **options: int,
) -> None:
    """Convolve at moved points with a weight each.

    Args:
        input: (B, C, H, W).
        weight: (O, C / group, KH, KW).
        bias: (O,), used if the option ``with_bias`` is true.
        ones: Not used.
        offset: (B, deformable_group · KH · KW · 2, OH, OW), y and x of each point.
        mask: (B, deformable_group · KH · KW, OH, OW), weight of each point.
        output: (B, O, OH, OW); receives the result.
        columns: Not used.
        **options: mmcv's: stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
            group, deformable_group and with_bias; others are not used.
    """
    result = _forward(input, offset, mask, weight, _modulated_shape(options))
    if options['with_bias']:
        result = result + bias.view(-1, 1, 1)
    output.copy_(result.view_as(output))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    **options: int,
) -> None:
    """Compute all derivatives into the tensors named for them.

    The others are those of :func:`modulated_deform_conv_forward`.
    """
    tensors = (grad_output, input, offset, mask, weight)
    shape = _modulated_shape(options)
    grads = _backward(*tensors, shape, 'input offset mask weight')
    grad_input.copy_(grads['input'])
    grad_weight.copy_(grads['weight'])
    grad_offset.copy_(grads['offset'])
    grad_mask.copy_(grads['mask'])
    if options['with_bias']:
        grad_bias.copy_(grad_output.sum((0, 2, 3)))
