"""mmcv's compiled operators: who needs them, and which of them are provided here."""

from typing import Callable, NoReturn

# Operators that are provided, by module: the functions of ``mmcv._ext``, who calls
# them in mmdet, and what runs them.
PROVIDED = {
    'nms': (
        ('nms',),
        'every detector but the DETR family',
        'torchvision on a GPU, else PyTorch',
    ),
    'soft NMS': (('softnms',), '`soft_nms`: CornerNet, CentripetalNet', 'PyTorch'),
    'NMS groups': (('nms_match',), '`ScoreHLRSampler`: PISA', 'PyTorch'),
    'sigmoid focal loss': (
        ('sigmoid_focal_loss_forward', 'sigmoid_focal_loss_backward'),
        '`FocalLoss` on a GPU: RetinaNet, FCOS, ATSS, DINO, …',
        'PyTorch',
    ),
    'softmax focal loss': (
        ('softmax_focal_loss_forward', 'softmax_focal_loss_backward'),
        'nobody in mmdet',
        'PyTorch',
    ),
    'box overlaps': (('bbox_overlaps',), 'nobody in mmdet', 'PyTorch'),
    'RoIAlign': (
        ('roi_align_forward', 'roi_align_backward'),
        'Faster, Cascade and Mask R-CNN, HTC, …; mask targets',
        'torchvision, else PyTorch',
    ),
    'RoI pooling': (
        ('roi_pool_forward', 'roi_pool_backward'),
        '`RoIPool` layers',
        'PyTorch (torchvision rounds otherwise)',
    ),
    'deformable RoI pooling': (
        ('deform_roi_pool_forward', 'deform_roi_pool_backward'),
        '`DeformRoIPoolPack`: dcn configs',
        'PyTorch',
    ),
    'deformable convolution': (
        (
            'deform_conv_forward',
            'deform_conv_backward_input',
            'deform_conv_backward_parameters',
        ),
        '`DCN`, `SAC`, RepPoints, VFNet, TOOD, guided anchoring, …',
        'torchvision, else PyTorch',
    ),
    'modulated deformable convolution': (
        ('modulated_deform_conv_forward', 'modulated_deform_conv_backward'),
        '`DCNv2`, DyHead',
        'torchvision, else PyTorch',
    ),
    'deformable attention': (
        ('ms_deform_attn_forward', 'ms_deform_attn_backward'),
        'Deformable DETR, DINO, Mask2Former, … on a GPU',
        'PyTorch',
    ),
    'masked convolution': (
        ('masked_im2col_forward', 'masked_col2im_forward'),
        '`MaskedConv2d`: guided anchoring',
        'PyTorch',
    ),
    'CARAFE': (('carafe_forward', 'carafe_backward'), 'carafe configs', 'PyTorch'),
    'synchronised batch normalisation': (
        (
            'sync_bn_forward_mean',
            'sync_bn_forward_var',
            'sync_bn_forward_output',
            'sync_bn_backward_param',
            'sync_bn_backward_data',
        ),
        '`MMSyncBN`: strong_baselines, simple_copy_paste',
        'PyTorch',
    ),
    'build information': (
        ('get_compiler_version', 'get_compiling_cuda_version'),
        'the environment in the log',
        'a fixed text',
    ),
}

# Operators that are not, by the beginning of their names.
USERS = {
    'rotated boxes (mmrotate)': (
        'nms_rotated nms_quadri box_iou_rotated box_iou_quadri roi_align_rotated '
        'riroi_align_rotated rotated_feature_align active_rotated_filter '
        'min_area_polygons convex_ diff_iou_rotated points_in_polygons'
    ),
    'point clouds (mmdet3d)': (
        'assign_score_withk ball_query stack_ chamfer_distance furthest_point '
        'gather_points group_points iou3d knn points_in_boxes roiaware_pool3d '
        'roipoint_pool3d dynamic_ hard_voxelize get_indice_pairs indice_ fused_indice '
        'three_'
    ),
    'image generation (mmagic)': 'bias_act filtered_lrelu fused_bias upfirdn2d',
    'text detection (mmocr)': 'bezier_align contour_expand pixel_group',
    'BorderDet': 'border_align',
    'FlowNet and trackers': 'correlation',
    'precise RoI pooling': 'prroi_pool',
    'PSANet (mmsegmentation)': 'psamask',
    'TIN (mmaction2)': 'tin_shift',
    '`CARAFENaive`': 'carafe_naive',
    'lane detection': 'line_nms',
}


def users_of(name: str) -> str:
    """Who usually needs an operator that is not provided."""
    for user, beginnings in USERS.items():
        if name.startswith(tuple(beginnings.split())):
            return user
    return 'no detector of mmdet 3.3'


def unavailable(name: str) -> Callable[..., NoReturn]:
    """Return a function that says that an operator is not available.

    Args:
        name: Name of a function of ``mmcv._ext``.
    """

    def call(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {name!r} (used by: {users_of(name)}) is only available "
            'in compiled mmcv, and mmcv is installed without compiled operators. To '
            'compile it, which takes a C++ compiler (and nvcc, for a GPU): `pip '
            'uninstall mmcv-lite`, then `pip install --no-build-isolation "mmcv<2.2"` '
            '(the fork: `pip install --no-build-isolation --force-reinstall --no-deps '
            'onedl-mmcv`)'
        )

    return call
