"""Small detectors and batches for trainings in several processes."""

import copy

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.support import builders, ssd_builders

IMAGES = 4
VARIANTS = {
    'baseline': dict(variant='baseline'),
    'cascade': dict(variant='cascade'),
    'gated cascade': dict(variant='gated_cascade'),
    'consistent': dict(),
    'weights 0, 1': dict(stage_loss_weights=(0.0, 1.0)),
    'weights 1, 0': dict(stage_loss_weights=(1.0, 0.0)),
    'cascade, weights 0, 1': dict(variant='cascade', stage_loss_weights=(0.0, 1.0)),
    'three label stages': dict(label_stages=3),
    'one regression': dict(reg_stages=1),
    'first normaliser': dict(cls_normalizer='first'),
    'SSD': dict(type='ConsistentSSDHead'),
    'SSD baseline': dict(type='ConsistentSSDHead', variant='baseline'),
    'RetinaHead': dict(type='RetinaHead'),
    'SSDHead': dict(type='SSDHead'),
    'SSD cascade': dict(type='ConsistentSSDHead', variant='cascade'),
    'SSD, weights 0, 1': dict(type='ConsistentSSDHead', stage_loss_weights=(0.0, 1.0)),
    'soft labels': dict(additions=[dict(type='SoftLabels', low=0.3, high=0.9)]),
    'SSD soft labels': dict(
        type='ConsistentSSDHead',
        additions=[dict(type='SoftLabels', low=0.3, high=0.9)],
    ),
    'confidence': dict(additions=[dict(type='LocalizationConfidence')]),
    'quality': dict(
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0),
        additions=[dict(type='QualityTargets')],
    ),
    'ATSS': dict(
        type='ConsistentATSSHead',
        norm_cfg=dict(type='GN', num_groups=4),
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=4,
            scales_per_octave=1,
            ratios=[1.0],
            strides=[16, 32, 64],
        ),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9)),
    ),
}
MANY = ([[10, 10, 70, 80], [50, 40, 120, 110], [5, 60, 60, 120]], [0, 1, 2])
FEW = ([[30, 30, 90, 90]], [1])
NONE = ([], [])
LAYOUTS = {
    'unequal': [MANY, MANY, FEW, MANY],
    'a rank without': [MANY, FEW, NONE, NONE],
    'one image with': [NONE, FEW, NONE, NONE],
    'nothing anywhere': [NONE] * IMAGES,
}
# A variant, and mmdet's head that it must equal.
BASES = {'baseline': 'RetinaHead', 'SSD baseline': 'SSDHead'}
CASES = [
    (variant, layout)
    for variant in VARIANTS
    if variant not in BASES.values()
    for layout in LAYOUTS
    if variant in ('consistent', 'SSD') or layout == 'a rank without'
]


def detector(variant, **more):
    """A ResNet of width 8, an FPN and the head, initialised alike everywhere."""
    options = dict(VARIANTS[variant], **more)
    ssd = 'SSD' in options.get('type', '')
    head = copy.deepcopy(ssd_builders.HEAD if ssd else builders.HEAD)
    parts = dict(train_cfg=head.pop('train_cfg'), test_cfg=head.pop('test_cfg'))
    parts['train_cfg'].update(options.pop('train_cfg', {}))
    if ssd:
        head['in_channels'] = (8, 8, 8)
    config = dict(
        type='SingleStageDetector' if ssd else 'RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor'),
        backbone=dict(
            type='ResNet',
            depth=18,
            base_channels=8,
            out_indices=(2, 3),
            strides=(1, 2, 2, 2),
            norm_eval=True,
        ),
        neck=dict(type='FPN', in_channels=[32, 64], out_channels=8, num_outs=3),
        bbox_head=dict(dict(type='ConsistentRetinaHead', **head), **options),
        **parts,
    )
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(config))
    for name, parameter in sorted(model.named_parameters()):
        if parameter.dim() > 1 and 'later_stages' not in name:
            torch.manual_seed(len(name))
            gain = 0.1 if 'bbox_head' in name else 1
            nn.init.kaiming_normal_(parameter, nonlinearity='linear')
            parameter.data *= gain
    return model.train()


def losses_and_gradients(model, layout, images):
    """Two steps on some of a layout's images; the second finds unused parameters.

    Args:
        model: Wrapped or not.
        layout: A key of ``LAYOUTS``.
        images: Slice of the images that this process takes.
    """
    size = builders.IMAGE
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(IMAGES, 3, size, size, generator=generator)[images]
    samples = []
    for boxes, labels in LAYOUTS[layout][images]:
        sample = DetDataSample(metainfo=builders.metas(1)[0])
        sample.gt_instances = builders.instances(boxes, labels)
        samples.append(sample)
    bare = getattr(model, 'module', model)
    for _ in range(2):
        model.zero_grad()
        losses = model(inputs, samples, mode='loss')
        total, log = bare.parse_losses(losses)
        total.backward()
    gradients = {k: p.grad for k, p in bare.named_parameters() if p.requires_grad}
    return {k: v.detach() for k, v in log.items()}, gradients


def work(rank, world, init_file, out_dir):
    """All cases in one of ``world`` processes; the results go to a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{init_file}', rank=rank, world_size=world
    )
    share = IMAGES // world
    images = slice(rank * share, (rank + 1) * share)
    results = {}
    for variant, layout in CASES:
        model = distributed(detector(variant, sync_normalizer=True))
        losses, gradients = losses_and_gradients(model, layout, images)
        for value in losses.values():
            torch.distributed.all_reduce(value)
            value /= world
        results[variant, layout] = losses, gradients
    for variant, base in BASES.items():
        for name, model in (('ours', detector(variant)), (base, detector(base))):
            found = losses_and_gradients(distributed(model), 'unequal', images)
            results[variant, name] = found
    torch.save(results, f'{out_dir}/rank{rank}.pth')
    torch.distributed.destroy_process_group()


def distributed(model):
    return DistributedDataParallel(model, find_unused_parameters=False)
