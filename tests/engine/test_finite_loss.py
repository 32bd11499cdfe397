"""The error names the tensor, the stage and the image, whatever the head is."""

import functools
from types import SimpleNamespace

import pytest
import torch
from mmdet.models.detectors import SemiBaseDetector
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch import nn

import mmdet_consistent  # noqa: F401  registers the heads
from mmdet_consistent.engine.hooks.finite_loss import FiniteLossHook, NonFiniteLossError

register_all_modules()
NAN = float('nan')
NARROW = dict(in_channels=8, feat_channels=32, stacked_convs=1, num_classes=3)
BOTH_ADDITIONS = [dict(type='AlignedFeatures'), dict(type='LocalizationConfidence')]
ADDITIONS = dict(
    plain=[],
    aligned=BOTH_ADDITIONS[:1],
    confidence=BOTH_ADDITIONS[1:],
    both=BOTH_ADDITIONS,
    soft=[dict(type='SoftLabels')],
)
# Where mmdet has a config of the head, and what the head is here.
HEADS = {
    'RetinaHead': ('retinanet/retinanet_r50_fpn_1x_coco.py', NARROW),
    **{
        f'retina, {name}': (
            'retinanet/retinanet_r50_fpn_1x_coco.py',
            dict(NARROW, type='ConsistentRetinaHead', additions=additions),
        )
        for name, additions in ADDITIONS.items()
    },
    **{
        f'retina, {name}': (
            'retinanet/retinanet_r50_fpn_1x_coco.py',
            dict(NARROW, type='ConsistentRetinaHead', **options),
        )
        for name, options in (
            ('cascade', dict(variant='cascade')),
            ('one regression', dict(reg_stages=1)),
        )
    },
    'GFLHead': ('gfl/gfl_r50_fpn_1x_coco.py', NARROW),
    'GFL': ('gfl/gfl_r50_fpn_1x_coco.py', dict(NARROW, type='ConsistentGFLHead')),
    'ATSSHead': ('atss/atss_r50_fpn_1x_coco.py', NARROW),
    'ATSS': ('atss/atss_r50_fpn_1x_coco.py', dict(NARROW, type='ConsistentATSSHead')),
    'SSD': ('ssd/ssd300_coco.py', dict(type='ConsistentSSDHead')),
    'RPNHead': (
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        dict(in_channels=8, feat_channels=8),
    ),
    'RPN': (
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        dict(in_channels=8, feat_channels=8, type='ConsistentRPNHead'),
    ),
}


@functools.cache
def build(name):
    """A model with the head alone, where mmdet's detectors have it."""
    path, options = HEADS[name]
    config = get_config(f'mmdet::{path}').model
    place = 'rpn_head' if 'rpn_head' in config else 'bbox_head'
    head, train_cfg = config[place], config.train_cfg
    head.update(options)
    head.train_cfg = train_cfg.rpn if place == 'rpn_head' else train_cfg
    model = nn.Module()
    setattr(model, place, MODELS.build(head))
    return model


class Values:
    def __init__(self, value):
        self.value = value

    def current(self):
        return self.value


class ScaledSteps:
    """An optimizer wrapper whose loss has one scale after another."""

    def __init__(self, scales, accumulate=1):
        self.loss_scaler = self
        self.scales = scales
        self.accumulate = accumulate
        self.count = 0

    def get_scale(self):
        return self.scales[self.count // self.accumulate]

    def should_update(self):
        return self.count % self.accumulate == 0


def setup(model='retina, plain', **options):
    samples = [
        SimpleNamespace(
            img_path=f'{name}.jpg', gt_instances=InstanceData(bboxes=torch.ones(1, 4))
        )
        for name in 'ab'
    ]
    runner = SimpleNamespace(
        model=build(model) if isinstance(model, str) else model,
        optim_wrapper=SimpleNamespace(),
        epoch=2,
        iter=40,
        message_hub=SimpleNamespace(log_scalars={}),
        logger=SimpleNamespace(warning=lambda text: None),
    )
    hook = FiniteLossHook(**options)
    hook.before_train(runner)
    return hook, runner, dict(data_samples=samples)


def step(hook, runner, batch, loss=NAN, poison=None, features=None):
    """One step; ``poison``: output, level, image and channel that become NaN."""
    for head in runner.model.children():
        channels = getattr(head, 'in_channels', 8)
        strides = head.prior_generator.strides
        if isinstance(channels, int):
            channels = [channels] * len(strides)
        outputs = head(features or [torch.randn(2, c, 3, 3) for c in channels])
        if poison:
            output, level, image, channel = poison
            outputs[output][level].data[image, channel, 1, 1] = NAN
    runner.message_hub.log_scalars.update(
        {
            'train/loss': Values(loss),
            'train/loss_cls': Values(1.0),
            'train/loss_bbox_s1': Values(loss),
        }
    )
    hook.after_train_iter(runner, 0, batch)


# Channels are counted anchor by anchor: each has the deltas of stage 0 (GFL: four
# distributions of 17), those of stage 1, and then the additions' values.
REGRESSION = [
    ('RetinaHead', 35, 'the regression output of level 1'),
    ('retina, plain', 8 * 2 + 3, 'the regression output of stage 0, level 1'),
    ('retina, plain', 8 * 2 + 4, 'the regression output of stage 1, level 1'),
    ('retina, aligned', 8 * 8 + 7, 'the regression output of stage 1, level 1'),
    ('retina, confidence', 9 * 2 + 3, 'the regression output of stage 0, level 1'),
    ('retina, confidence', 9 * 8 + 7, 'the regression output of stage 1, level 1'),
    ('retina, confidence', 9 * 8 + 8, 'the values of LocalizationConfidence of level'),
    ('retina, both', 9 * 3 + 4, 'the regression output of stage 1, level 1'),
    ('retina, both', 9 * 3 + 8, 'the values of AlignedFeatures and LocalizationCon'),
    ('retina, soft', 8 * 3 + 4, 'the regression output of stage 1, level 1'),
    ('GFLHead', 67, 'the regression output of level 1'),
    ('GFL', 67, 'the regression output of stage 0, level 1'),
    ('GFL', 68, 'the regression output of stage 1, level 1'),
    ('ATSSHead', 3, 'the regression output of level 1'),
    ('ATSS', 3, 'the regression output of stage 0, level 1'),
    ('ATSS', 4, 'the regression output of stage 1, level 1'),
    ('SSD', 8 * 3 + 4, 'the regression output of stage 1, level 1'),
    ('RPNHead', 11, 'the regression output of level 1'),
    ('RPN', 8 * 2 + 4, 'the regression output of stage 1, level 1'),
]


@pytest.mark.parametrize(('head', 'channel', 'message'), REGRESSION)
def test_error_names_the_stage_whose_box_output_is_nan(head, channel, message):
    with pytest.raises(NonFiniteLossError, match=message) as error:
        step(*setup(head), poison=(1, 1, 1, channel))
    text = str(error.value)
    assert 'level 1, image 1 of the batch (b.jpg)' in text
    assert 'epoch 3, iteration 41: loss is nan, loss_bbox_s1 is nan.' in text
    assert 'loss_cls is' not in text


@pytest.mark.parametrize('head', [h for h in HEADS if h != 'retina, cascade'])
def test_error_names_the_classification_output_or_says_that_all_is_finite(head):
    with pytest.raises(NonFiniteLossError, match='the classification output of level'):
        step(*setup(head), poison=(0, 1, 1, 0))
    with pytest.raises(NonFiniteLossError, match=r'are all finite.*a\.jpg, b\.jpg'):
        step(*setup(head))


@pytest.mark.parametrize('head', ['ATSSHead', 'ATSS'])
def test_error_names_further_outputs_by_number(head):
    with pytest.raises(NonFiniteLossError, match='output number 3, level 2, image 0'):
        step(*setup(head), poison=(2, 2, 0, 0))


def test_error_names_the_stage_of_a_cascade_whose_scores_are_nan():
    with pytest.raises(NonFiniteLossError, match='classification output of stage 1, l'):
        step(*setup('retina, cascade'), poison=(0, 1, 1, 9 * 3 + 1))


def test_head_with_one_regression_but_two_label_sets_has_a_stage_0():
    with pytest.raises(NonFiniteLossError, match='regression output of stage 0, level'):
        step(*setup('retina, one regression'), poison=(1, 1, 1, 35))


def test_semi_supervised_error_names_the_forward_pass_and_lists_all_images():
    student = build('retina, plain')
    model = SemiBaseDetector.__new__(SemiBaseDetector)
    nn.Module.__init__(model)
    model.student = student
    hook, runner, batch = setup(model)
    labelled, _ = batch['data_samples']
    unlabelled = SimpleNamespace(img_path='u.jpg')
    branches = dict(sup=[labelled, None], unsup_student=[None, unlabelled])
    for poison in (None, 3):
        outputs = student.bbox_head([torch.randn(1, 8, 3, 3) for _ in range(5)])
        if poison:
            outputs[1][2].data[0, poison] = NAN
    runner.message_hub.log_scalars['train/loss'] = Values(NAN)
    message = r'stage 0, level 2, image 0 of forward pass 2 \(images: a\.jpg, u\.jpg\)'
    with pytest.raises(NonFiniteLossError, match=message):
        hook.after_train_iter(runner, 0, dict(data_samples=branches))


def test_features_come_before_outputs():
    features = [torch.ones(2, 8, 3, 3) for _ in range(5)]
    features[1][1, 0, 0, 0] = float('inf')
    with pytest.raises(NonFiniteLossError, match='the features of level 1, image 1'):
        step(*setup(), features=features)


def test_ground_truth_comes_before_everything():
    hook, runner, batch = setup()
    batch['data_samples'][1].gt_instances.bboxes[0, 2] = NAN
    with pytest.raises(NonFiniteLossError, match=r'ground-truth box of b\.jpg'):
        step(hook, runner, batch, poison=(0, 0, 0, 0))


def test_model_without_a_dense_head_gives_the_plain_error():
    with pytest.raises(NonFiniteLossError, match='No outputs of a dense head'):
        step(*setup(nn.Module()))


def test_failing_explanation_gives_the_plain_error(monkeypatch):
    def fail(preds):
        raise RuntimeError('sizes do not match')

    hook, runner, batch = setup()
    monkeypatch.setattr(runner.model.bbox_head, 'split_preds', fail)
    for data in (batch, [1, 2], dict(data_samples=[object()])):
        with pytest.raises(NonFiniteLossError) as error:
            step(hook, runner, data)
        text = str(error.value)
        assert 'epoch 3, iteration 41: loss is nan' in text
        assert 'could not be determined' in text
        assert '--resume goes on from the last one' in text


def test_finite_loss_passes_and_holds_no_memory():
    hook, runner, batch = setup()
    step(hook, runner, batch, loss=0.5)
    assert hook._passes == []


def test_patience_counts_consecutive_losses():
    hook, runner, batch = setup(patience=2)
    for loss in (NAN, float('inf'), 1.0, NAN, NAN):
        step(hook, runner, batch, loss=loss)
    with pytest.raises(NonFiniteLossError):
        step(hook, runner, batch)


def test_default_patience_is_10_with_a_gradient_scaler():
    hook, runner, _ = setup()
    hook.patience = None
    runner.optim_wrapper = ScaledSteps([1.0])
    hook.before_train(runner)
    assert hook.patience == 10
    with pytest.raises(ValueError, match='patience must be at least 0'):
        FiniteLossHook(patience=-1)


def watch(scales, **options):
    hook, runner, batch = setup(patience=2)
    optim = runner.optim_wrapper = ScaledSteps(scales, **options)
    hook.before_train(runner)
    for _ in range((len(scales) - 1) * optim.accumulate):
        optim.count += 1
        step(hook, runner, batch, loss=1.0)


@pytest.mark.parametrize('accumulate', [1, 2])
def test_scale_that_falls_below_1_step_after_step_is_an_error(accumulate):
    message = r'not finite, even of 0\.125 times .*\(3 steps in a row.* \(images: a'
    with pytest.raises(NonFiniteLossError, match=message):
        watch([1.0, 0.5, 0.25, 0.125], accumulate=accumulate)
    # Above 1 it is the scaler's business; and a step taken in between resets the count.
    watch([65536.0 / 2**n for n in range(19)], accumulate=accumulate)
    watch(
        [0.5, 0.5, 0.25, 0.125, 0.125, 0.0625, 0.03125, 0.0625], accumulate=accumulate
    )
