"""Which of mmdet's anchor heads have a consistent version: try every one of them.

Every class of mmdet's that comes from `AnchorHead` (and those that have anchors but
do not) is built small from one of mmdet's own configs, and its consistent version
beside it: with one stage it must be the base head bit for bit, fresh it must predict
the base head's boxes, and it must train. Writes the table of docs/any_head.md.

Example:
    python -m tools.dev.docs.compatibility            # write the table
    python -m tools.dev.docs.compatibility --check    # fail if it is out of date
"""

import copy
import inspect
import logging
import math
import sys
from pathlib import Path
from typing import Any, Optional

import torch
from mmdet.models import dense_heads
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch import Tensor, nn

import mmdet_consistent.engine.safe  # noqa: F401  lets mmdet's SSD predict
from mmdet_consistent import ConsistentMixin, make_consistent

from .generated import parse_args, with_block, write_or_check

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / 'docs' / 'any_head.md'
IMAGE, CHANNELS, CLASSES = 384, 16, 3
# A config of mmdet's that has the head, and where in the model.
CONFIGS = {
    'RetinaHead': ('retinanet/retinanet_r50_fpn_1x_coco.py', 'bbox_head'),
    'SSDHead': ('ssd/ssd300_coco.py', 'bbox_head'),
    'RPNHead': ('rpn/rpn_r50_fpn_1x_coco.py', 'rpn_head'),
    'RetinaSepBNHead': (
        'nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py',
        'bbox_head',
    ),
    'FreeAnchorRetinaHead': ('free_anchor/freeanchor_r50_fpn_1x_coco.py', 'bbox_head'),
    'PISARetinaHead': ('pisa/retinanet-r50_fpn_pisa_1x_coco.py', 'bbox_head'),
    'PISASSDHead': ('pisa/ssd300_pisa_coco.py', 'bbox_head'),
    'FSAFHead': ('fsaf/fsaf_r50_fpn_1x_coco.py', 'bbox_head'),
    'ATSSHead': ('atss/atss_r50_fpn_1x_coco.py', 'bbox_head'),
    'PAAHead': ('paa/paa_r50_fpn_1x_coco.py', 'bbox_head'),
    'DDODHead': ('ddod/ddod_r50_fpn_1x_coco.py', 'bbox_head'),
    'GFLHead': ('gfl/gfl_r50_fpn_1x_coco.py', 'bbox_head'),
    'YOLOFHead': ('yolof/yolof_r50-c5_8xb8-1x_coco.py', 'bbox_head'),
    'YOLACTHead': ('yolact/yolact_r50_1xb8-55e_coco.py', 'bbox_head'),
}


def heads() -> dict[str, type]:
    """All heads of mmdet's with anchors, those that are no ``AnchorHead`` last."""
    found = {
        name: member
        for name, member in inspect.getmembers(dense_heads, inspect.isclass)
        if issubclass(member, AnchorHead)
    }
    others = ('SABLRetinaHead', 'YOLOV3Head', 'CascadeRPNHead')
    found.update({name: getattr(dense_heads, name) for name in others})
    return found


def small_config(name: str) -> dict:
    """The head of mmdet's own config, for a few channels and small images."""
    if name == 'AnchorHead':
        config = small_config('RPNHead')
    else:
        path, part = CONFIGS[name]
        model = get_config(f'mmdet::{path}').model
        config = copy.deepcopy(model[part])
        train, test = model.get('train_cfg') or {}, model.get('test_cfg') or {}
        if part == 'rpn_head':
            train, test = train['rpn'], test['rpn']
        config.update(train_cfg=train, test_cfg=test)
    config.update(type=name, num_classes=1 if part_of(name) == 'rpn_head' else CLASSES)
    several = isinstance(config['in_channels'], (list, tuple))
    count = len(config['in_channels']) if several else 0
    config['in_channels'] = (CHANNELS,) * count if several else CHANNELS
    for field, value in (('feat_channels', CHANNELS), ('stacked_convs', 1)):
        if field in config:
            config[field] = value
    if 'norm_cfg' not in config and name in (
        'ATSSHead',
        'PAAHead',
        'DDODHead',
        'GFLHead',
    ):
        config['norm_cfg'] = dict(type='GN', num_groups=4, requires_grad=True)
    test = config['test_cfg']
    test['score_thr'], test['max_per_img'] = 0.0, 50
    if 'top_k' in test:
        test['top_k'] = 50
    return config


def part_of(name: str) -> str:
    """Where a config has the head; ``AnchorHead`` is tried as an RPN."""
    return CONFIGS.get(name, ('', 'rpn_head'))[1]


def build(config: dict, seed: int = 0, **options: Any) -> nn.Module:
    """Build a head; the same weights for the same seed."""
    torch.manual_seed(seed)
    head = MODELS.build(ConfigDict(copy.deepcopy(config), **options))
    logging.disable(logging.INFO)  # it says what it did to each weight
    head.init_weights()
    logging.disable(logging.NOTSET)
    for key, parameter in sorted(head.named_parameters()):
        if parameter.dim() > 1 and 'later_stages' not in key:
            torch.manual_seed(seed + len(key))
            nn.init.normal_(parameter, std=0.02)
    return head


def features(head: nn.Module) -> tuple[Tensor, ...]:
    """Features of two images."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(2, CHANNELS, *size, generator=generator) for size in sizes(head)
    )


def sizes(head: nn.Module) -> list[tuple[int, int]]:
    """Height and width of each level."""
    strides = head.prior_generator.strides
    return [(math.ceil(IMAGE / y), math.ceil(IMAGE / x)) for x, y in strides]


def metas() -> list[dict]:
    """Meta information of two images."""
    size = (IMAGE, IMAGE)
    shapes = ('img_shape', 'pad_shape', 'ori_shape', 'batch_input_shape')
    return [dict.fromkeys(shapes, size) | dict(scale_factor=(1.0, 1.0))] * 2


def ground_truth(base: nn.Module) -> list[InstanceData]:
    """Ground truth of two images: boxes that the untrained head predicts.

    So some refined boxes are positive, whatever the head makes of its anchors.
    """
    found = []
    for result in predictions_of(base):
        width, height = (result.bboxes[:, 2:] - result.bboxes[:, :2]).unbind(1)
        result = result[(width > 16) & (height > 16)][:4]
        result.bboxes = result.bboxes + 2  # else there were nothing to learn
        found.append(InstanceData(bboxes=result.bboxes, labels=result.labels))
    return found


def losses_of(head: nn.Module, gts: list[InstanceData]) -> dict[str, Tensor]:
    """The head's losses, one scalar each."""
    torch.manual_seed(0)  # samplers draw
    losses = head.loss_by_feat(*head(features(head)), gts, metas(), None)
    return {
        name: torch.stack(list(value)).sum()
        if isinstance(value, (list, tuple))
        else torch.as_tensor(value)
        for name, value in losses.items()
    }


def predictions_of(head: nn.Module) -> list:
    """What the head detects in two images."""
    head.eval()
    with torch.no_grad():
        outputs = head(features(head))
        found = head.predict_by_feat(*outputs, batch_img_metas=metas())
    head.train()
    return found


def check(name: str) -> str:
    """Try a head's consistent version, and say how its boxes are decoded.

    Raises:
        AssertionError: If it isn't what it should be.
    """
    made = make_consistent(heads()[name])
    config = small_config(name)
    kind = dict(type=made.__name__)
    base = build(config)
    gts = ground_truth(base)

    one = build(dict(config, **kind), label_stages=1, reg_stages=1)
    one._base_is_plain = lambda: False  # the base head's own code
    one.load_state_dict(base.state_dict())
    theirs, ours = losses_of(base, gts), losses_of(one, gts)
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), f'{name}: {key} with one stage'
    for a, b in zip(predictions_of(base), predictions_of(one)):
        assert torch.equal(a.bboxes, b.bboxes), f'{name}: boxes with one stage'
        assert torch.equal(a.scores, b.scores), f'{name}: scores with one stage'

    two = build(dict(config, **kind))
    missing = two.load_state_dict(base.state_dict(), strict=False)
    assert not missing.unexpected_keys, missing
    assert all('later_stages' in key for key in missing.missing_keys), missing
    # Deltas that are composed are rounded anew; pixels.
    for a, b in zip(predictions_of(base), predictions_of(two)):
        assert len(a) == len(b) > 0, f'{name}: {len(a)} and {len(b)} boxes'
        torch.testing.assert_close(a.scores, b.scores)
        torch.testing.assert_close(a.bboxes, b.bboxes, atol=1e-2, rtol=0)

    losses = losses_of(two, gts)
    for key in ('loss_cls_s1', 'loss_bbox_s1'):
        assert 0 < losses[key] < float('inf'), f'{name}: {key}'
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    without = [
        key
        for key, parameter in two.named_parameters()
        if parameter.requires_grad and parameter.grad is None
    ]
    theirs = losses_of(base, gts)
    sum(value for key, value in theirs.items() if 'loss' in key).backward()
    unused = [
        key for key, parameter in base.named_parameters() if parameter.grad is None
    ]
    assert set(without) <= set(unused), f'{name}: no gradient in {without}'
    later = [p for key, p in two.named_parameters() if 'later_stages' in key]
    assert any(p.grad.abs().sum() > 0 for p in later), f'{name}: later stages idle'
    torch.optim.SGD(two.parameters(), lr=0.01).step()
    for found in predictions_of(two):
        assert torch.isfinite(found.bboxes).all(), f'{name}: boxes after a step'
    staged = not hasattr(two, '_predicts_staged') or two._predicts_staged()
    return 'chained' if staged else 'composed'


def row(name: str, decodes: str) -> str:
    """The table's row of a head that works."""
    made = make_consistent(heads()[name]).__name__
    config = CONFIGS.get(name, ('(an RPN’s)', ''))[0]
    return f'| `{name}` | `{made}` | {config} | {decodes} |'


def refusal(head: type) -> Optional[str]:
    """Why a head has no consistent version, or ``None``."""
    try:
        make_consistent(head)
    except ValueError as error:
        return str(error).split(': ', 1)[1]
    return None


def table() -> str:
    """The page's table, in Markdown."""
    works, refused = [], []
    for name, head in heads().items():
        if issubclass(head, ConsistentMixin):
            continue
        why = refusal(head)
        if why:
            refused.append(f'| `{name}` | {why} |')
            continue
        works.append(row(name, check(name)))
    return '\n'.join(
        [
            '| mmdet’s head | consistent version | tried with mmdet’s | decodes |',
            '| --- | --- | --- | --- |',
            *works,
            '',
            '| mmdet’s head | why not |',
            '| --- | --- |',
            *refused,
        ]
    )


def main() -> None:
    args = parse_args(__doc__)
    register_all_modules(init_default_scope=True)
    refusal_text = (
        f'{PAGE.name} is out of date: run python -m tools.dev.docs.compatibility'
    )
    write_or_check(PAGE, with_block(PAGE, 'heads', table()), args.check, refusal_text)


if __name__ == '__main__':
    sys.exit(main())
