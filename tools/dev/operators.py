"""Compare mmdet's detectors with and without mmcv's compiled operators.

Example:
    python -m tools.dev.operators            # detectors and times, in ten minutes
    python -m tools.dev.operators --times    # the times alone; the rest stays

Needs compiled mmcv. It writes docs/results/operators.json, of which ``python -m
tools.dev.docs`` makes docs/results/operators.md.
"""

import argparse
import copy
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from types import ModuleType
from typing import Any

import mmcv._ext
import mmcv.ops
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_consistent.engine import make_safe
from mmdet_consistent.ops import catalogue, extension
from mmdet_consistent.utils import atomic
from mmdet_consistent.utils.tables import markdown_table
from mmdet_consistent.utils.timing import alternate, ratios, summarize
from tools.dev import ROOT
from tools.dev.benchmark.machine import about_machine

DATA = ROOT / 'docs/results/operators.json'
DETECTORS = {
    'RetinaNet': 'retinanet/retinanet_r50_fpn_1x_coco',
    'SSD': 'ssd/ssd300_coco',
    'ATSS': 'atss/atss_r50_fpn_1x_coco',
    'FCOS': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
    'Cascade R-CNN': 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco',
    'Mask R-CNN': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
    'DETR': 'detr/detr_r50_8xb2-150e_coco',
    'Deformable DETR': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
    'RepPoints': 'reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco',
    'Faster R-CNN, DCN': 'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco',
    'Faster R-CNN, DCNv2': 'dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco',
    'Faster R-CNN, PISA': 'pisa/faster-rcnn_r50_fpn_pisa_1x_coco',
}
SETS = {'compiled': mmcv._ext, 'pytorch': extension}
CANDIDATES = (1000, 5000)
Outputs = dict[str, torch.Tensor]


@contextmanager
def operators(module: ModuleType) -> Iterator[None]:
    """Let mmcv.ops call the functions of a module."""
    users = [m for name, m in sys.modules.items() if name.startswith('mmcv.ops.')]
    users = [user for user in users if hasattr(user, 'ext_module')]
    before = [user.ext_module for user in users]
    try:
        for user in users:
            user.ext_module = module
        yield
    finally:
        for user, old in zip(users, before):
            user.ext_module = old


def build(config: str) -> torch.nn.Module:
    """Build a detector with random weights that keeps detections of any score."""
    cfg = get_config(f'mmdet::{config}.py').model

    def change(node: Any) -> None:
        if isinstance(node, dict):
            checkpoint = node.get('init_cfg')
            if isinstance(checkpoint, dict) and checkpoint['type'] == 'Pretrained':
                node['init_cfg'] = None
            if 'score_thr' in node:
                node['score_thr'] = 0.0
        values = node.values() if isinstance(node, dict) else node
        for value in values if isinstance(node, (dict, list, tuple)) else ():
            change(value)

    change(cfg)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def batch(size: int = 320) -> tuple[torch.Tensor, list[DetDataSample]]:
    """Draw two images with six objects each."""
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.rand, generator=generator)
    samples = []
    for _ in range(2):
        corner, extent = draw(6, 2) * size * 0.6, draw(6, 2) * size * 0.3 + 16
        masks = (draw(6, size, size) > 0.5).byte().numpy()
        shape = (size, size)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape,
                ori_shape=shape,
                pad_shape=shape,
                batch_input_shape=shape,
                scale_factor=(1.0, 1.0),
            ),
            gt_instances=InstanceData(
                bboxes=torch.cat([corner, corner + extent], 1),
                labels=torch.randint(80, (6,), generator=generator),
                masks=BitmapMasks(masks, size, size),
            ),
        )
        samples.append(sample)
    return draw(2, 3, size, size) * 4 - 2, samples


def run(model: torch.nn.Module, scale: float = 1.0) -> tuple[Outputs, Outputs, Outputs]:
    """Return a detector's losses, its gradients in one tensor, and its detections."""
    images, samples = batch()
    images *= scale
    torch.manual_seed(2)
    model.train().zero_grad()
    values = model.loss(images, copy.deepcopy(samples))
    losses = {
        name: sum(value) if isinstance(value, list) else value
        for name, value in values.items()
        if 'loss' in name
    }
    sum(losses.values()).backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    found = {}
    for i, sample in enumerate(samples):
        with torch.no_grad():
            (result,) = model.eval().predict(images[i : i + 1], [copy.deepcopy(sample)])
        for name, value in result.pred_instances.items():
            found[f'{i} {name}'] = torch.as_tensor(value)
    return {k: v.detach() for k, v in losses.items()}, {'': torch.cat(grads)}, found


def difference(first: Outputs, second: Outputs) -> float:
    """Return the largest norm of a difference, relative to the value's norm."""
    if {k: v.shape for k, v in first.items()} != {
        k: v.shape for k, v in second.items()
    }:
        return float('inf')
    largest = 0.0
    for name, value in first.items():
        value, other = value.double(), second[name].double()
        scale = max(value.norm().item(), 1e-6)
        largest = max(largest, (value - other).norm().item() / scale)
    return largest


def compare(config: str) -> dict[str, Any]:
    """Compare a detector's outputs with both sets of operators."""
    model = build(config)
    state = copy.deepcopy(model.state_dict())
    outputs = {}
    for name, module in SETS.items():
        model.load_state_dict(state)
        with operators(module):
            outputs[name] = run(model)
    pairs = zip(outputs['compiled'], outputs['pytorch'])
    loss, grad, found = (difference(first, second) for first, second in pairs)
    count = sum(
        len(value)
        for name, value in outputs['compiled'][2].items()
        if name.endswith('labels')
    )
    row = dict(config=config, loss=loss, gradient=grad, boxes=count, predictions=found)
    if grad > 1e-6:  # is it the operators, or does any rounding do it?
        model.load_state_dict(state)
        rounded = run(model, 1 + 1e-7)  # with compiled operators, the default
        row['control'] = difference(outputs['compiled'][1], rounded[1])
    return row


def predict_case(candidates: int) -> Callable[[], Any]:
    """Return RetinaNet R50's ``predict`` on 800×1333 pixels."""
    model = build(DETECTORS['RetinaNet']).eval()
    model.test_cfg.nms_pre = model.bbox_head.test_cfg.nms_pre = candidates // 5
    shape = (800, 1333)
    meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
    meta.update(pad_shape=(800, 1344), batch_input_shape=(800, 1344))
    images = torch.rand(1, 3, 800, 1344, generator=torch.Generator().manual_seed(3))
    return lambda: model.predict(images * 4 - 2, [DetDataSample(metainfo=dict(meta))])


def operator_cases() -> dict[str, Callable[[], Any]]:
    """Name calls of operators that compiled mmcv has for a CPU."""
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(4))

    def boxes(num: int, extent: float) -> torch.Tensor:
        corner = draw(num, 2) * 800
        return torch.cat([corner, corner + draw(num, 2) * extent + 8], 1)

    def nms(num: int, extent: float) -> Callable[[], Any]:
        return partial(mmcv.ops.nms, boxes(num, extent), draw(num), 0.5)

    features = draw(2, 256, 100, 168).requires_grad_()
    rois = torch.cat([torch.arange(512)[:, None] % 2, boxes(512, 300)], 1)
    offsets = (draw(2, 18, 50, 84) * 4 - 2).requires_grad_()
    weight = draw(256, 256, 3, 3).requires_grad_()
    small = draw(2, 256, 50, 84).requires_grad_()
    return {
        'NMS, 1,000 boxes': nms(1000, 100),
        'NMS, 5,000 boxes, few overlap': nms(5000, 20),
        'NMS, 5,000 boxes, most overlap': nms(5000, 300),
        'RoIAlign, 512 RoIs, with gradient': lambda: (
            mmcv.ops.roi_align(features, rois, 7, 1 / 8, 0, 'avg', True)
            .square()
            .sum()
            .backward()
        ),
        'deformable convolution 3 × 3, with gradient': lambda: (
            mmcv.ops.deform_conv2d(small, offsets, weight, 1, 1, 1, 1, 1, False, 2)
            .square()
            .sum()
            .backward()
        ),
    }


def measure(call: Callable[[], Any], seconds: float, grad: bool) -> dict[str, Any]:
    """Time a call with both sets of operators in turn; processor time, one thread."""

    def timed(module: ModuleType, clock: Callable[[], float]) -> dict[str, float]:
        with operators(module), torch.set_grad_enabled(grad):
            start = clock()
            call()
            return {'all': clock() - start}

    runs = {name: partial(timed, module) for name, module in SETS.items()}
    samples = alternate(
        runs, time.process_time, warmup=1, repetitions=25, seconds=seconds, least=7
    )
    compiled, ours = samples['compiled']['all'], samples['pytorch']['all']
    return dict(
        compiled=statistics.median(compiled),
        pytorch=statistics.median(ours),
        ratio=list(summarize(ratios(ours, compiled))),
    )


def page() -> str:
    """Render docs/results/operators.md."""
    data = json.loads(DATA.read_text('utf-8'))
    exact = '0 (bit for bit)'
    header = ('detector', 'config', 'losses', 'gradients', 'control', 'detections')
    header += ('they differ by',)
    detectors = [
        [
            name,
            f'`{row["config"].split("/")[-1]}`',
            *(f'{row[k]:.0e}' if row[k] else exact for k in ('loss', 'gradient')),
            f'{row["control"]:.0e}' if 'control' in row else '',
            str(row['boxes']),
            f'{row["predictions"]:.0e}' if row['predictions'] else exact,
        ]
        for name, row in data['detectors'].items()
    ]
    times = [
        [
            name,
            *(f'{1000 * row[key]:,.1f}' for key in ('compiled', 'pytorch')),
            '{:.2f} ({:.2f}–{:.2f})'.format(*row['ratio']),
        ]
        for name, row in data['times'].items()
    ]
    provided = [
        [name, ', '.join(f'`{f}`' for f in functions), users, by]
        for name, (functions, users, by) in catalogue.PROVIDED.items()
    ]
    missing = [
        [who, ', '.join(f'`{name}…`' for name in names.split())]
        for who, names in catalogue.USERS.items()
    ]
    facts = '\n'.join(f'- {key}: {value}' for key, value in data['about'].items())
    return f"""# Operators

mmcv-lite has no compiled operators; `mmdet_consistent` provides those that mmdet's
detectors call. Compiled mmcv, where it is installed, is used instead
(`MMDET_CONSISTENT_OPS=torch` prefers ours). Measured by
`python -m tools.dev.operators`, written by `python -m tools.dev.docs`.

{facts}

## Detectors with and without compiled operators

mmdet's configs with random weights, two random images of 320 × 320 pixels and six
objects each: the norm of the difference, relative to the value's, of the losses (the
largest), of the gradient, and of detections (the largest of boxes, scores, labels and
masks; at a score threshold of 0). The control, where gradients differ by more than
1e-6, is the difference that compiled operators show on images scaled by 1 + 1e-7.

{
        markdown_table(
            header,
            detectors,
        )
    }

## Time

Processor time in milliseconds on one thread, median of alternating runs; the ratio is
the median, with quartiles, of neighbouring runs. `predict` is RetinaNet R50's on one
image of 800 × 1333 pixels; candidates are the boxes that reach NMS.

{markdown_table(['call', 'compiled', 'PyTorch', 'PyTorch / compiled'], times)}

## Provided

{
        markdown_table(
            ['operator', 'functions of `mmcv._ext`', 'used by', 'runs on'], provided
        )
    }

"torchvision" means its compiled operator, where torchvision is installed and loads.

## Not provided

Calling one of these raises `NotImplementedError`, which names the operator and says how
to install compiled mmcv.

{markdown_table(['used by', 'functions of `mmcv._ext`'], missing)}
"""


def write(data: dict[str, Any]) -> None:
    """Write what is measured so far."""
    atomic.write(DATA, (json.dumps(data, indent=1) + '\n').encode())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--times', action='store_true', help='measure times alone')
    args = parser.parse_args()
    if mmcv._ext.__file__ == extension.__file__:
        parser.error('mmcv has no compiled operators to compare with')
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    make_safe()  # mmdet's SSD predicts with it alone
    init_default_scope('mmdet')
    torch.set_num_threads(1)
    data = json.loads(DATA.read_text('utf-8')) if DATA.is_file() else {}
    data['about'] = {'date': date.today().isoformat(), **about_machine()}
    if not args.times:
        data['detectors'] = {}
        for name, config in DETECTORS.items():
            data['detectors'][name] = compare(config)
            write(data)
            print(name, data['detectors'][name], flush=True)
    data['times'] = {}
    for number in CANDIDATES:
        row = measure(predict_case(number), seconds=30, grad=False)
        data['times'][f'`predict`, {number:,} candidates'] = row
        print(number, row, flush=True)
    for name, call in operator_cases().items():
        data['times'][name] = measure(call, seconds=6, grad=True)
        print(name, data['times'][name], flush=True)
        write(data)


if __name__ == '__main__':
    main()
