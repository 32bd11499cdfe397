"""A gradient may be NaN under a finite loss: such weights reach no checkpoint."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.hooks import Hook

from mmdet_consistent.engine.checkpoint import (
    CheckpointError,
    SpoiltWeightsError,
    check_resumable,
    spoilt,
)
from mmdet_consistent.engine.hooks.finite_loss import NonFiniteLossError
from tests.support.toy import train_toy

BAD = [float('nan'), float('inf'), -float('inf')]


class SpoilGradient(Hook):
    """Make the first weight's gradient NaN in one iteration."""

    def __init__(self, at):
        self.at = at

    def before_train(self, runner):
        weight = next(runner.model.parameters())
        weight.register_hook(lambda g: g * BAD[0] if runner.iter == self.at else g)


class AddBuffer(Hook):
    """Give the model a buffer of one value, constant or changing at an iteration."""

    priority = 'VERY_HIGH'

    def __init__(self, value, at=None):
        self.value, self.at = value, at

    def before_run(self, runner):
        start = self.value if self.at is None else 0.0
        runner.model.register_buffer('mask', torch.full((2,), start))

    def after_train_iter(self, runner, **kwargs):
        if runner.iter == self.at:
            runner.model.mask.fill_(self.value)


def saved(folder):
    """The names of all checkpoints; each is finite."""
    for path in Path(folder).glob('*.pth'):
        weights = torch.load(path, weights_only=False)['state_dict']
        assert all(value.isfinite().all() for value in weights.values()), path
    return {path.name for path in Path(folder).glob('*.pth')}


# Four iterations an epoch. The next loss would be NaN, too: only the last iteration
# before a checkpoint can spoil it.
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(checkpoint=dict(type='CheckpointHook'), hooks=['FiniteLossHook']),
        dict(hooks=['EMAHook']),
        dict(iters=8),
        dict(checkpoint=dict(max_keep_ckpts=1)),
    ],
    ids=['safe', 'plain hook', 'averaged', 'iterations', 'one kept'],
)
def test_spoilt_weights_are_not_saved_and_the_last_good_file_stays(tmp_path, options):
    hooks = [dict(type=name) for name in options.get('hooks', ())]
    at = 5 if 'iters' in options else 7
    options = dict(options, hooks=[SpoilGradient(at), *hooks])
    with pytest.raises(SpoiltWeightsError, match=r'layer.weight.* holds NaN') as error:
        train_toy(tmp_path, **options)
    assert '--resume goes on from the last one, if there is one' in str(error.value)
    good = 'iter_3.pth' if 'iters' in options else 'epoch_1.pth'
    assert saved(tmp_path) == {good}
    options['hooks'] = hooks
    _, log = train_toy(tmp_path, resume=True, **options)
    assert log[0][1] == (3 if 'iters' in options else 4)


def test_best_checkpoint_of_spoilt_weights_is_not_saved(tmp_path):
    options = dict(checkpoint=dict(interval=9, save_best='mAP'), validate=True)
    with pytest.raises(SpoiltWeightsError):
        train_toy(tmp_path, hooks=[SpoilGradient(7)], **options)
    assert saved(tmp_path) == set()


@pytest.mark.parametrize('value', BAD)
def test_resuming_falls_back_from_spoilt_weights_of_another_program(tmp_path, value):
    train_toy(tmp_path, epochs=3)
    newest = tmp_path / 'epoch_3.pth'
    content = torch.load(newest, weights_only=False)
    content['state_dict']['layer.bias'].fill_(value)
    torch.save(content, newest)
    with pytest.raises(CheckpointError, match=r'3\.pth cannot be .* layer.bias holds'):
        train_toy(tmp_path, epochs=4, resume=True, load_from=newest)
    assert train_toy(tmp_path, epochs=4, resume=True)[1][0][1] == 8


def test_infinite_constants_are_saved_and_resumed_from(tmp_path):
    hooks = [AddBuffer(-float('inf'))]
    train_toy(tmp_path, epochs=1, hooks=hooks)
    assert train_toy(tmp_path, epochs=2, hooks=hooks, resume=True)[1][0][1] == 4
    with pytest.raises(SpoiltWeightsError, match='mask holds'):
        train_toy(tmp_path / 'new', epochs=1, hooks=[AddBuffer(BAD[0], at=3)])


def test_logged_gradient_norm_stops_training_at_once(tmp_path):
    options = dict(
        hooks=[SpoilGradient(5), dict(type='FiniteLossHook')],
        optim_wrapper=dict(clip_grad=dict(max_norm=1.0)),
    )
    message = r'epoch 2, iteration 6: grad_norm is nan: layer.weight now holds NaN'
    with pytest.raises(NonFiniteLossError, match=message):
        train_toy(tmp_path, **options)
    assert saved(tmp_path) == {'epoch_1.pth'}


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(['state_dict', 'ema_state_dict', 'optimizer', 'message_hub']),
    st.lists(st.sampled_from(['a', 'module', 'b.c']), min_size=1, max_size=3),
    st.sampled_from([*BAD, 1.0]),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
)
def test_spoilt_finds_a_bad_value_at_any_depth(part, path, value, dtype):
    checkpoint = dict(meta={}, state_dict={}, message_hub={}, optimizer={})
    values = {'good': torch.zeros(3), 'bad': torch.tensor([0, value], dtype=dtype)}
    for name in path:
        values = {name: values, 'count': 3}
    checkpoint[part] = values
    is_bad = value != 1.0 and part != 'message_hub'
    assert bool(spoilt(checkpoint)) == is_bad
    if is_bad:
        assert 'bad holds' in spoilt(checkpoint)
        with pytest.raises(SpoiltWeightsError, match=r'^a\.pth cannot be resumed'):
            check_resumable(checkpoint, 'a.pth')
