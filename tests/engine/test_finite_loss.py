"""The error says which tensor of which stage and which image."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import InstanceData
from torch import nn

from mmdet_consistent.engine.hooks.finite_loss import FiniteLossHook, NonFiniteLossError


class Head(nn.Module):
    """Features of two levels to class scores and two stages of deltas."""

    reg_stages = 2
    poison = None  # (output, level, image, channel)

    def forward(self, features):
        deltas = [f.repeat(1, 2, 1, 1) for f in features]
        outputs = [[f[:, :3] for f in features], deltas]
        if self.poison:
            output, level, image, channel = self.poison
            outputs[output][level] = outputs[output][level].clone()
            outputs[output][level][image, channel] = float('nan')
        return tuple(outputs)


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


def setup(poison=None, **options):
    model = nn.Module()
    model.bbox_head = Head()
    model.bbox_head.poison = poison
    samples = [
        SimpleNamespace(
            img_path=f'{name}.jpg', gt_instances=InstanceData(bboxes=torch.ones(1, 4))
        )
        for name in 'ab'
    ]
    runner = SimpleNamespace(
        model=model,
        optim_wrapper=SimpleNamespace(),
        epoch=2,
        iter=40,
        message_hub=SimpleNamespace(log_scalars={}),
        logger=SimpleNamespace(warning=lambda text: None),
    )
    hook = FiniteLossHook(**options)
    hook.before_train(runner)
    return hook, runner, dict(data_samples=samples)


def step(hook, runner, batch, loss=float('nan'), features=None):
    features = features or [torch.ones(2, 8, 4, 4), torch.ones(2, 8, 2, 2)]
    runner.model.bbox_head(features)
    runner.message_hub.log_scalars.update(
        {
            'train/loss': Values(loss),
            'train/loss_cls': Values(1.0),
            'train/loss_bbox_s1': Values(loss),
        }
    )
    hook.after_train_iter(runner, 0, batch)


@pytest.mark.parametrize(
    ('poison', 'said'),
    [
        ((0, 1, 1, 2), r'the classification output of level 1, image 1 .*\(b.jpg\)'),
        ((1, 0, 0, 3), r'the regression output of stage 0, level 0, .*\(a.jpg\)'),
        # Channels: anchor 0 (stage 0, stage 1), anchor 1 (stage 0, stage 1).
        ((1, 1, 1, 4), r'the regression output of stage 1, level 1, .*\(b.jpg\)'),
        ((1, 1, 1, 15), r'the regression output of stage 1, level 1, .*\(b.jpg\)'),
        (None, r"head's outputs are all finite.*a.jpg, b.jpg"),
    ],
)
def test_the_first_bad_tensor_is_named(poison, said):
    with pytest.raises(NonFiniteLossError, match=said) as error:
        step(*setup(poison))
    text = str(error.value)
    assert 'epoch 3, iteration 41: loss is nan, loss_bbox_s1 is nan.' in text
    assert 'loss_cls is' not in text


def test_features_come_before_outputs():
    bad = torch.ones(2, 8, 2, 2)
    bad[1, 0, 0, 0] = float('inf')
    with pytest.raises(NonFiniteLossError, match='the features of level 1, image 1'):
        step(*setup(), features=[torch.ones(2, 8, 4, 4), bad])


def test_ground_truth_comes_before_all():
    hook, runner, batch = setup((0, 0, 0, 0))
    batch['data_samples'][1].gt_instances.bboxes[0, 2] = float('nan')
    with pytest.raises(NonFiniteLossError, match=r'ground-truth box of b\.jpg'):
        step(hook, runner, batch)


def test_a_finite_loss_passes_and_holds_no_memory():
    hook, runner, batch = setup()
    step(hook, runner, batch, loss=0.5)
    assert hook._outputs is None
    assert hook._features is None


def test_patience_counts_losses_in_a_row():
    hook, runner, batch = setup(patience=2)
    for loss in (float('nan'), float('inf'), 1.0, float('nan'), float('nan')):
        step(hook, runner, batch, loss=loss)
    with pytest.raises(NonFiniteLossError):
        step(hook, runner, batch)


def test_a_gradient_scaler_gets_patience_by_default():
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
def test_scales_in_free_fall(accumulate):
    said = r'not finite, even of 0\.125 times .*\(3 steps in a row.* \(images: a'
    with pytest.raises(NonFiniteLossError, match=said):
        watch([1.0, 0.5, 0.25, 0.125], accumulate=accumulate)
    # Above 1, which is the scaler's business; and with a step taken in between.
    watch([65536.0 / 2**n for n in range(19)], accumulate=accumulate)
    watch(
        [0.5, 0.5, 0.25, 0.125, 0.125, 0.0625, 0.03125, 0.0625], accumulate=accumulate
    )
