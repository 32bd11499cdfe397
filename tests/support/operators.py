"""mmcv's operators for tests: compiled ones, ours, and inputs for both."""

import importlib.util
import sys
from importlib.machinery import PathFinder

import mmcv
import mmcv.ops
import numpy as np
import torch

from mmdet_consistent.ops import extension

ours = extension
BINS = dict(aligned_height=2, aligned_width=3, spatial_scale=0.25)


def load_compiled():
    """Return mmcv's own extension, or None where mmcv has none."""
    spec = PathFinder.find_spec('mmcv._ext', mmcv.__path__)
    if spec is None:
        return None
    loaded = sys.modules.get('mmcv._ext')
    if loaded is not None and loaded.__file__ == spec.origin:
        return loaded
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


compiled = load_compiled()


def use_operators(monkeypatch, module):
    """Let mmcv.ops call the functions of a module."""
    for name, loaded in list(sys.modules.items()):
        if name.startswith('mmcv.ops.') and hasattr(loaded, 'ext_module'):
            monkeypatch.setattr(loaded, 'ext_module', module)


def run_nms(module, boxes, scores, threshold, offset=0):
    return module.nms(boxes, scores, iou_threshold=threshold, offset=offset)


def run_softnms(module, boxes, scores, method, threshold=0.3, offset=0):
    """Return the kept indices, and their boxes with the new scores."""
    dets = boxes.new_zeros(len(boxes), 5)
    indices = module.softnms(
        boxes,
        scores,
        dets,
        iou_threshold=threshold,
        sigma=0.5,
        min_score=0.05,
        method=method,
        offset=offset,
    )
    return indices, dets[: len(indices)]


def run_roi_align(module, features, rois, grads, **options):
    """Return the pooled features, both argmax tensors and the features' gradient."""
    output = grads.new_zeros(grads.shape)
    argmax = grads.new_zeros(grads.shape if options['pool_mode'] == 0 else 0)
    y, x = argmax.clone(), argmax.clone()
    module.roi_align_forward(features, rois, output, y, x, **BINS, **options)
    by_features = torch.zeros_like(features)
    module.roi_align_backward(grads, rois, y, x, by_features, **BINS, **options)
    return output, y, x, by_features


def convolution(rng, zero_offsets=False, whole_offsets=False):
    """Draw the tensors and the geometry of a deformable convolution."""
    kernel, stride, dilation = (rng.randint(1, 3 + (i == 0), 2) for i in range(3))
    padding, groups, offset_groups = rng.randint(0, 3, 2), *rng.randint(1, 3, 2)
    size = rng.randint(5, 9, 2)
    out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    points = offset_groups * int(kernel.prod())
    tensors = dict(
        input=normal(rng, 2, 4, *size),
        weight=normal(rng, 6, 4 // groups, *kernel),
        bias=normal(rng, 6),
        offset=normal(rng, 2, 2 * points, *out) * 2,
        mask=normal(rng, 2, points, *out).sigmoid(),
        grads=normal(rng, 2, 6, *out),
    )
    if zero_offsets:
        tensors['offset'].zero_()
    if whole_offsets:
        tensors['offset'].round_()
    geometry = dict(
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=int(groups),
        offset_groups=int(offset_groups),
    )
    return tensors, geometry


def run_deform_conv(module, tensors, geometry):
    """Return the result and the gradients by input, offset and weight."""
    input, weight, offset = (tensors[name] for name in ('input', 'weight', 'offset'))
    options = dict(
        group=geometry['groups'],
        deformable_group=geometry['offset_groups'],
        im2col_step=1,
    )
    names = dict(kernel='k', stride='d', padding='pad', dilation='dilation')
    for name, short in names.items():
        pair = geometry[name]
        options.update({f'{short}H': int(pair[0]), f'{short}W': int(pair[1])})
    output = torch.zeros_like(tensors['grads'])
    module.deform_conv_forward(
        input, weight, offset, output, input.new_zeros(0), input.new_zeros(0), **options
    )
    grads = [torch.zeros_like(x) for x in (input, offset, weight)]
    module.deform_conv_backward_input(
        *(input, offset, tensors['grads'].clone(), grads[0], grads[1], weight),
        input.new_zeros(0),
        **options,
    )
    module.deform_conv_backward_parameters(
        *(input, offset, tensors['grads'].clone(), grads[2]),
        *(input.new_zeros(0), input.new_zeros(0)),
        scale=1,
        **options,
    )
    return output, *grads


def run_modulated(module, tensors, geometry):
    """Return the result and the gradients by input, weight, bias, offset and mask."""
    names = ('input', 'weight', 'bias', 'offset', 'mask')
    input, weight, bias, offset, mask = (tensors[name] for name in names)
    options = dict(
        group=geometry['groups'],
        deformable_group=geometry['offset_groups'],
        with_bias=True,
    )
    names = dict(kernel='kernel', stride='stride', padding='pad', dilation='dilation')
    for name, short in names.items():
        pair = geometry[name]
        options.update({f'{short}_h': int(pair[0]), f'{short}_w': int(pair[1])})
    output = torch.zeros_like(tensors['grads'])
    given = (input, weight, bias, input.new_zeros(0), offset, mask)
    module.modulated_deform_conv_forward(*given, output, input.new_zeros(0), **options)
    grads = [torch.zeros_like(x) for x in (input, weight, bias, offset, mask)]
    module.modulated_deform_conv_backward(
        *given, input.new_zeros(0), *grads, tensors['grads'].clone(), **options
    )
    return output, *grads


def normal(rng, *shape):
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def random_boxes(rng, num, spread=60.0, whole=False):
    """Draw boxes that overlap, xyxy in pixels."""
    corner, size = rng.uniform(0, spread, (num, 2)), rng.uniform(2, 30, (num, 2))
    boxes = torch.from_numpy(np.hstack([corner, corner + size]).astype(np.float32))
    return boxes.round() if whole else boxes


def random_rois(rng, num, maps):
    """Draw RoIs, some of which reach over the edges of a 40-pixel image."""
    image = torch.from_numpy(rng.randint(0, maps, (num, 1))).float()
    return torch.cat([image, random_boxes(rng, num, 40.0) - 8], 1)


def stored_cases():
    """Name each stored case: a function from a module to its tensors.

    The inputs come from numpy's RandomState, whose stream never changes.
    """
    cases = {}
    for number, whole in enumerate((False, True)):
        rng = np.random.RandomState(number)
        boxes, scores = (
            random_boxes(rng, 80, whole=whole),
            torch.from_numpy(rng.permutation(80).astype(np.float32) / 80),
        )
        for offset in (0, 1):
            cases[f'nms/{number}/{offset}'] = lambda m, b=boxes, s=scores, o=offset: [
                run_nms(m, b, s, 0.5, o)
            ]
            for method in range(3):
                name = f'softnms/{number}/{offset}/{method}'
                tied = (scores * 10).round() / 10
                cases[name] = lambda m, b=boxes, s=tied, o=offset, k=method: (
                    run_softnms(m, b, s, k, offset=o)
                )
        dets = torch.cat([boxes, scores[:, None]], 1)
        cases[f'nms_match/{number}'] = lambda m, d=dets: [
            torch.tensor([i for group in m.nms_match(d, 0.4) for i in group])
        ]
    for mode in (0, 1):
        for ratio in (0, 2):
            for aligned in (True, False):
                rng = np.random.RandomState(2)
                features, rois = normal(rng, 2, 2, 7, 8), random_rois(rng, 5, 2)
                grads = normal(rng, 5, 2, 2, 3)
                options = dict(pool_mode=mode, sampling_ratio=ratio, aligned=aligned)
                cases[f'roi_align/{mode}/{ratio}/{aligned}'] = (
                    lambda m, f=features, r=rois, g=grads, o=options: run_roi_align(
                        m, f, r, g, **o
                    )
                )
    for kind in range(3):
        rng = np.random.RandomState(3 + kind)
        given = convolution(rng, zero_offsets=kind == 1, whole_offsets=kind == 2)
        cases[f'deform/{kind}'] = lambda m, g=given: run_deform_conv(m, *g)
        cases[f'modulated/{kind}'] = lambda m, g=given: run_modulated(m, *g)
    for mode in (0, 1):
        for aligned in (True, False):
            cases[f'bbox_overlaps/{mode}/{aligned}'] = lambda m, k=mode, a=aligned: [
                run_overlaps(m, k, a)
            ]
    return cases


def run_overlaps(module, mode, aligned, offset=1, seed=9):
    rng = np.random.RandomState(seed)
    first, second = random_boxes(rng, 6), random_boxes(rng, 6)
    ious = first.new_zeros((6,) if aligned else (6, 6))
    module.bbox_overlaps(first, second, ious, mode=mode, aligned=aligned, offset=offset)
    return ious


def assert_equal(found, expected):
    """Compare tensors: indices exactly, values within 1e-6 of the largest."""
    assert len(found) == len(expected)
    for actual, wanted in zip(found, expected):
        assert actual.shape == wanted.shape
        if not wanted.is_floating_point():
            assert torch.equal(actual, wanted)
        elif wanted.numel():
            scale = max(1.0, wanted.abs().max().item())
            assert (actual - wanted).abs().max().item() <= 1e-6 * scale
