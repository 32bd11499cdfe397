import contextlib
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmdet_consistent import StageLossWeightHook
from tests.support.builders import build_head, features, ground_truth, metas

NUMBER = itertools.count()


class Images(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return dict(seed=index)


class Detector(BaseModel):
    """The head alone, on features out of thin air."""

    def __init__(self, **options):
        super().__init__()
        init_default_scope('mmdet')  # other trainings' may be left
        self.bbox_head = build_head(**options)

    def forward(self, seed, mode):
        outputs = self.bbox_head(features(seed=int(seed[0])))
        return self.bbox_head.loss_by_feat(*outputs, ground_truth(), metas())


def train(work_dir, epochs=4, stop_at=None, resume=False, hook=None, **options):
    """(α · weights, loss names) of each iteration."""
    seen = []

    class Watch(Hook):
        priority = 'LOW'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            head = runner.model.bbox_head
            seen.append((head.stage_loss_weights, set(outputs)))
            if runner.iter + 1 == stop_at:
                raise KeyboardInterrupt

    runner = Runner(
        model=Detector(**options),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Images(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=1,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-4)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[dict(type='StageLossWeightHook', **(hook or {})), Watch()],
        resume=resume,
        experiment_name=f'stage_weight{next(NUMBER)}',
        default_scope='mmdet',
        log_level='ERROR',
    )
    with contextlib.suppress(KeyboardInterrupt):
        runner.train()
    return seen


def log_lines(work_dir):
    [path] = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_weight_of_later_stages_follows_the_ramp_and_is_logged(tmp_path):
    seen = train(
        tmp_path, hook=dict(end=2), stage_loss_weights=(1.0, 0.5, 2.0), label_stages=3
    )
    factors = [min(i / 6, 1) for i in range(12)]  # 2 epochs of 3 iterations
    for (weights, losses), factor in zip(seen, factors):
        assert weights == pytest.approx((1.0, 0.5 * factor, 2.0 * factor))
        assert ('loss_cls_s1' in losses) == ('loss_cls_s2' in losses) == (factor > 0)
        assert {'loss_cls', 'loss_bbox', 'loss_bbox_s1', 'num_pos_s2'} <= losses
    assert seen[-1][0] == (1.0, 0.5, 2.0)
    lines = log_lines(tmp_path)
    assert [line['alpha'] for line in lines] == pytest.approx(factors)
    assert 'loss_cls_s1' not in lines[0]
    assert 'loss_cls_s1' in lines[1]


def test_resumed_training_continues_the_ramp(tmp_path):
    whole = train(tmp_path / 'whole')
    first = train(tmp_path / 'parts', stop_at=8)
    rest = train(tmp_path / 'parts', resume=True)
    assert len(first) == 8
    assert len(rest) == 6
    assert first[:6] + rest == whole


def runner(model, iterations=10, max_iters=100):
    return SimpleNamespace(
        model=model, train_dataloader=range(iterations), max_iters=max_iters
    )


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (dict(), {0: 0, 25: 0.25, 100: 1}),
        (dict(begin=2, end=4), {0: 0, 20: 0, 30: 0.5, 40: 1, 90: 1}),
        (dict(begin=0.5, end=1), {5: 0, 6: 0.2, 10: 1}),
        (dict(begin=2, end=4, by_epoch=False), {2: 0, 3: 0.5, 4: 1, 50: 1}),
        (dict(curve='cosine', end=4), {0: 0, 10: 0.146447, 20: 0.5, 40: 1}),
        (dict(start_factor=2, end_factor=0.5), {0: 2, 50: 1.25, 100: 0.5}),
    ],
)
def test_factor_follows_the_curve(options, expected):
    hook = StageLossWeightHook(**options)
    hook.before_train(runner(Detector()))
    for iteration, factor in expected.items():
        assert hook.factor(iteration) == pytest.approx(factor, abs=1e-6), iteration


def test_second_training_starts_from_the_weights_of_the_config():
    model = Detector(stage_loss_weights=(1.0, 0.5))
    hook = StageLossWeightHook(start_factor=0.5)
    one = runner(model)
    one.iter, one.message_hub = 0, SimpleNamespace(update_scalar=lambda *_: None)
    for _ in range(2):
        hook.before_train(one)
        hook.before_train_iter(one, 0)
        assert model.bbox_head.stage_loss_weights == (1.0, 0.25)


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (lambda: torch.nn.Linear(1, 1), 'Linear has no consistent head: set model.bb'),
        (lambda: Detector(label_stages=1), 'no later label stage.*label_stages=1'),
        (lambda: Detector(stage_loss_weights=(1, 0)), r'stage_loss_weights=\(1, 0\)'),
    ],
)
def test_model_without_a_later_stage_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        StageLossWeightHook().before_train(runner(model()))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(start_factor=-1), 'start_factor must be a number of at least 0, got -1'),
        (dict(end_factor='1'), 'end_factor'),
        (dict(begin=float('nan')), 'begin'),
        (dict(begin=3, end=3), 'end must be after begin=3, got 3'),
        (dict(end='last'), 'end'),
        (dict(curve='step'), "curve must be in .*, got 'step'"),
    ],
)
def test_invalid_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StageLossWeightHook(**options)


def test_ramp_that_starts_after_the_training_is_refused():
    hook = StageLossWeightHook(begin=10)
    with pytest.raises(ValueError, match=r'begin=10 epochs .* iteration 100'):
        hook.before_train(runner(Detector()))
