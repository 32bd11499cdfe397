"""The module that is found as ``mmcv._ext`` where mmcv has none.

It has the functions that mmdet's detectors call; every other name is a function that
says that its operator is not available.
"""

import multiprocessing
from typing import Any

from mmdet_consistent.ops import OperatorFinder
from mmdet_consistent.ops.attention import (
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
from mmdet_consistent.ops.carafe import carafe_backward, carafe_forward
from mmdet_consistent.ops.catalogue import unavailable
from mmdet_consistent.ops.deform import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from mmdet_consistent.ops.deform_roi_pool import (
    deform_roi_pool_backward,
    deform_roi_pool_forward,
)
from mmdet_consistent.ops.focal import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from mmdet_consistent.ops.masked import masked_col2im_forward, masked_im2col_forward
from mmdet_consistent.ops.nms import nms, nms_match, softnms
from mmdet_consistent.ops.norm import (
    sync_bn_backward_data,
    sync_bn_backward_param,
    sync_bn_forward_mean,
    sync_bn_forward_output,
    sync_bn_forward_var,
)
from mmdet_consistent.ops.overlaps import bbox_overlaps
from mmdet_consistent.ops.roi_align import roi_align_backward, roi_align_forward
from mmdet_consistent.ops.roi_pool import roi_pool_backward, roi_pool_forward

__all__ = [
    'bbox_overlaps',
    'carafe_backward',
    'carafe_forward',
    'deform_conv_backward_input',
    'deform_conv_backward_parameters',
    'deform_conv_forward',
    'deform_roi_pool_backward',
    'deform_roi_pool_forward',
    'get_compiler_version',
    'get_compiling_cuda_version',
    'masked_col2im_forward',
    'masked_im2col_forward',
    'modulated_deform_conv_backward',
    'modulated_deform_conv_forward',
    'ms_deform_attn_backward',
    'ms_deform_attn_forward',
    'nms',
    'nms_match',
    'roi_align_backward',
    'roi_align_forward',
    'roi_pool_backward',
    'roi_pool_forward',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softmax_focal_loss_backward',
    'softmax_focal_loss_forward',
    'softnms',
    'sync_bn_backward_data',
    'sync_bn_backward_param',
    'sync_bn_forward_mean',
    'sync_bn_forward_output',
    'sync_bn_forward_var',
]


def get_compiler_version() -> str:
    """Return what mmcv reports as its compiler."""
    return 'none: operators in PyTorch, by mmdet_consistent'


def get_compiling_cuda_version() -> str:
    """Return what mmcv reports as the CUDA that it was compiled for."""
    return 'not available'


def __getattr__(name: str) -> Any:
    """Any other operator: a function that raises NotImplementedError."""
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return unavailable(name)


def _provide_in_children() -> None:
    """Let processes that are spawned from here find this module as well.

    A spawned DataLoader worker, for instance, first of all unpickles a dataset of
    mmdet's, which imports mmcv.ops. A process's configuration is unpickled before its
    arguments; the class in it makes the child import ``mmdet_consistent.ops``.
    """
    configuration = getattr(multiprocessing.current_process(), '_config', None)
    if isinstance(configuration, dict):
        configuration['mmdet_consistent.ops'] = OperatorFinder


if __name__ == 'mmcv._ext':
    _provide_in_children()
