"""Overflow in float16 skips steps without damage, and is named if it lasts."""

import contextlib
import itertools

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner

from mmdet_consistent.engine.hooks.finite_loss import NonFiniteLossError
from tests.support import builders
from tests.support.toy import Killed, same_weights, train_toy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(torch.amp, 'GradScaler'),
        reason='before torch 2.3, only CUDA had a gradient scaler',
    ),
]
NUMBER = itertools.count()


@OPTIM_WRAPPERS.register_module(force=True)
class CpuAmpOptimWrapper(AmpOptimWrapper):
    """mmengine's, but for what it builds: its scaler and float16 are CUDA's alone."""

    def __init__(self, init_scale, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=init_scale)
        self._scale_update_param = None

    @contextlib.contextmanager
    def optim_context(self, model):
        half = torch.autocast('cpu', torch.float16)
        with OptimWrapper.optim_context(self, model), half:
            yield


class Steps(Hook):
    """After each step: the scale of the loss, and the parameters."""

    def __init__(self):
        self.seen = []

    def before_train(self, runner):
        self.after_train_iter(runner, 0)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        scale = runner.optim_wrapper.loss_scaler.get_scale()
        values = {k: p.detach().clone() for k, p in runner.model.named_parameters()}
        self.seen.append((scale, values))


def images():
    """Four images of noise, with ground truth or without."""
    generator = torch.Generator().manual_seed(0)
    size = (3, builders.IMAGE, builders.IMAGE)
    samples = []
    for truth in builders.ground_truth() * 2:
        sample = DetDataSample(metainfo=builders.metas(1)[0])
        sample.gt_instances = truth
        sample.img_path = f'image{len(samples)}.jpg'
        noise = torch.randint(256, size, generator=generator, dtype=torch.uint8)
        samples.append(dict(inputs=noise, data_samples=sample))
    return samples


def train(folder, model, init_scale=256.0, epochs=6, **optim_wrapper):
    """The scale and the parameters, before the first step and after each."""
    steps = Steps()
    Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=images(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(
            type='CpuAmpOptimWrapper',
            init_scale=init_scale,
            optimizer=dict(type='SGD', lr=1e-3),
            **optim_wrapper,
        ),
        custom_hooks=[dict(type='FiniteLossHook'), steps],
        experiment_name=f'amp{next(NUMBER)}',
        log_level='ERROR',
    ).train()
    return steps.seen


def detector_with(layer, weight=3e4):
    """A detector whose outputs of one layer overflow in float16."""
    model = builders.small_detector()
    model.init_weights()  # the runner would, later
    with torch.no_grad():
        model.bbox_head.get_submodule(layer).weight.fill_(weight)
    return model


@pytest.mark.parametrize('options', [dict(), dict(clip_grad=dict(max_norm=10))])
def test_overflowing_gradients_skip_steps_and_change_nothing_else(tmp_path, options):
    model = builders.small_detector()
    seen = train(tmp_path, model, init_scale=2.0**19, **options)
    skipped = []
    for (scale, before), (next_scale, after) in zip(seen, seen[1:]):
        skipped.append(next_scale < scale)
        assert same_weights(before, after) == skipped[-1]
        assert all(bool(torch.isfinite(value).all()) for value in after.values())
    # The first ones, until the scale fits; then all is well.
    count = sum(skipped)
    assert 0 < count < len(skipped)
    assert all(skipped[:count])


@pytest.mark.parametrize(
    ('layer', 'message'),
    [
        ('retina_reg', 'the regression output of stage 0, level'),
        ('retina_reg.later_stages.0', 'the regression output of stage 1, level'),
    ],
)
def test_overflowing_outputs_end_training_with_their_name(tmp_path, layer, message):
    model = detector_with(layer)
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    with pytest.raises(NonFiniteLossError, match=message) as error:
        train(tmp_path, model)
    # Ten in a row are the scaler's to mend; by the eleventh no step was taken.
    assert 'epoch 6, iteration 11' in str(error.value)
    assert 'of the batch (image' in str(error.value)
    assert same_weights(dict(model.named_parameters()), before)


@pytest.mark.parametrize('accumulate', [1, 2])
def test_endless_skipping_ends_training_with_a_name(tmp_path, accumulate):
    """An infinite score has a finite loss, so that alone would not be noticed."""
    model = detector_with('retina_cls')
    weight = model.bbox_head.retina_reg.weight
    weight.register_hook(lambda gradient: gradient / 0)
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    with pytest.raises(NonFiniteLossError) as error:
        train(
            tmp_path,
            model,
            init_scale=2.0**-3,
            epochs=6 * accumulate,
            accumulative_counts=accumulate,
        )
    text = str(error.value)
    assert f'epoch {6 * accumulate - accumulate // 2}, ' in text
    assert f'the gradients are not finite, even of {2.0**-14:g} times the loss' in text
    assert '11 steps in a row were skipped' in text
    assert 'not finite: the classification output of level 0, image 0' in text
    assert 'bfloat16' in text
    assert same_weights(dict(model.named_parameters()), before)


def test_loss_scale_is_resumed(tmp_path):
    options = dict(optim_wrapper=dict(type='CpuAmpOptimWrapper', init_scale=2.0**30))
    whole, whole_log = train_toy(tmp_path / 'whole', **options)
    with pytest.raises(Killed):
        train_toy(tmp_path / 'cut', kill=('before_train_iter', 7), **options)
    resumed, log = train_toy(tmp_path / 'cut', resume=True, **options)
    assert same_weights(resumed, whole)
    assert log == whole_log[-len(log) :]
    assert len(log) < len(whole_log)
