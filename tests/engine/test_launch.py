from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from mmdet_consistent import SeedHook
from mmdet_consistent.engine import launch
from mmdet_consistent.engine.launch import (
    add_safeguards,
    check_names,
    count_accumulation,
    friendly_errors,
    join_cpu_processes,
)
from mmdet_consistent.utils.errors import ConfigError, UserError


def config(**fields):
    dataset = dict(type='CocoDataset', ann_file='a.json')
    base = dict(
        model=dict(),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=7)),
        train_dataloader=dict(dataset=dataset),
        val_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset)),
    )
    return Config(dict(base, **fields))


def test_add_safeguards_replaces_plain_hooks_and_data_sets():
    cfg = config(custom_hooks=[dict(type='SeedHook'), dict(type='EMAHook')])
    add_safeguards(cfg, 'refuse', 'quick')
    add_safeguards(cfg, 'refuse', 'quick')  # a second time changes nothing
    assert cfg.default_hooks.checkpoint == dict(type='SafeCheckpointHook', interval=7)
    assert [h.type for h in cfg.custom_hooks] == [
        'SeedHook',
        'EMAHook',
        'ConfigCheckHook',
        'FiniteLossHook',
    ]
    checked = dict(
        type='CheckedCocoDataset',
        ann_file='a.json',
        on_bad_data='refuse',
        check_images='quick',
    )
    assert cfg.train_dataloader.dataset == checked
    assert cfg.val_dataloader.dataset.dataset == checked
    assert cfg.custom_imports.imports == ['mmdet_consistent.engine.safe']


def test_add_safeguards_syncs_batch_norm_of_several_processes():
    cfg = config(launcher='pytorch')
    add_safeguards(cfg)
    assert cfg.custom_hooks[-1].type == 'SyncBuffersHook'


class MyCheckpointHook(CheckpointHook):
    pass


class MySeedHook(SeedHook):
    pass


@pytest.mark.parametrize('place', ['default', 'custom'])
@pytest.mark.parametrize(
    'kind',
    [
        'CheckpointHook',
        'mmengine.CheckpointHook',
        'mmengine.hooks.CheckpointHook',
        CheckpointHook,
    ],
    ids=str,
)
def test_checkpoint_hook_becomes_safe_however_it_is_named(kind, place):
    hook = dict(type=kind, interval=7)
    fields = dict(default_hooks=dict(checkpoint=None), custom_hooks=[hook])
    if place == 'default':
        fields = dict(default_hooks=dict(checkpoint=hook))
    cfg = config(**fields)
    add_safeguards(cfg)
    hooks = [cfg.default_hooks.checkpoint, *cfg.custom_hooks]
    assert dict(type='SafeCheckpointHook', interval=7) in hooks
    assert sum('Checkpoint' in str(h and h['type']) for h in hooks) == 1


def test_checkpoint_hook_that_cannot_be_made_safe_is_named():
    cfg = config(default_hooks=dict(checkpoint=dict(type=MyCheckpointHook)))
    with pytest.warns(UserWarning, match='MyCheckpointHook writes checkpoints in its'):
        add_safeguards(cfg)
    assert cfg.default_hooks.checkpoint.type is MyCheckpointHook


@pytest.mark.parametrize(
    'own',
    [
        dict(type=SeedHook),
        dict(type='mmengine.SeedHook'),
        dict(type=MySeedHook),
        SeedHook(),
    ],
    ids=['class', 'scope', 'derived', 'object'],
)
def test_hooks_that_the_config_has_are_not_added_again(own):
    cfg = config(custom_hooks=[own])
    add_safeguards(cfg)
    added = [hook for hook in cfg.custom_hooks if hook is not own]
    assert [h['type'] for h in added if isinstance(h, dict)][-2:] == [
        'ConfigCheckHook',
        'FiniteLossHook',
    ]
    assert not any(isinstance(h, dict) and h['type'] == 'SeedHook' for h in added)


@pytest.mark.parametrize(
    'field', ['custom_imports', 'default_hooks', 'custom_hooks', 'val_dataloader']
)
def test_fields_may_be_none_or_missing(field):
    missing = config()
    missing.pop(field, None)
    for cfg in (config(**{field: None}), missing):
        add_safeguards(cfg)
        assert cfg.default_hooks.checkpoint.type == 'SafeCheckpointHook'
        assert cfg.custom_imports.imports == ['mmdet_consistent.engine.safe']


@pytest.mark.parametrize(
    ('enable', 'count', 'base'),
    [(True, 4, 4), (True, 1, 16), (True, None, 16), (False, 4, 16), (None, 4, None)],
)
def test_scaled_rate_counts_accumulated_batches(enable, count, base):
    scale = None if enable is None else dict(enable=enable, base_batch_size=16)
    runner = SimpleNamespace(
        auto_scale_lr=scale,
        cfg=config(optim_wrapper=dict(accumulative_counts=count)),
        logger=SimpleNamespace(info=lambda text: None),
    )
    count_accumulation(runner)
    assert (runner.auto_scale_lr or {}).get('base_batch_size') == base
    # A config that is used again must not be scaled twice.
    assert scale is None or scale['base_batch_size'] == 16


def test_add_safeguards_keeps_hooks_and_data_sets_of_the_user():
    cfg = config(
        default_hooks=dict(checkpoint=dict(type='MyCheckpointHook')),
        train_dataloader=dict(dataset=dict(type='MyDataset')),
        custom_imports=dict(imports=['mine'], allow_failed_imports=False),
    )
    add_safeguards(cfg)
    assert cfg.default_hooks.checkpoint.type == 'MyCheckpointHook'
    assert cfg.train_dataloader.dataset == dict(type='MyDataset')
    assert cfg.custom_imports.imports == ['mine', 'mmdet_consistent.engine.safe']
    kept = config()
    add_safeguards(kept, 'keep')
    assert kept.train_dataloader.dataset.type == 'CocoDataset'


def test_misspelt_option_is_refused_with_a_suggestion():
    names = ['train_cfg.max_epochs', 'model.bbox_head.label_stages', 'load_from']
    check_names(config(), names)
    with pytest.raises(ConfigError, match=r"did you mean 'train_dataloader'"):
        check_names(config(), ['train_dataloder.batch_size'])
    check_names(config(my_variable=1), ['my_variable'])


def test_misspelt_field_of_the_file_gives_a_warning():
    check_names(config(max_epochs=3, classes=('cell',), data_root='data'))
    with pytest.warns(
        UserWarning, match=r"'optim_wraper': did you mean 'optim_wrapper'"
    ):
        check_names(config(optim_wraper=dict()))


def test_friendly_errors_hides_the_traceback_of_user_errors_only():
    message = r'^ConfigError: no such thing$'
    with pytest.raises(SystemExit, match=message), friendly_errors():
        raise ConfigError('no such thing')
    assert issubclass(ConfigError, UserError)
    with pytest.raises(KeyError), friendly_errors():
        raise KeyError('a bug')


@given(
    missing=st.dictionaries(
        st.sampled_from(
            [
                'custom_imports',
                'custom_hooks',
                'default_hooks',
                'env_cfg',
                'train_dataloader',
                'val_dataloader',
            ]
        ),
        st.booleans(),
    )
)
def test_fields_that_are_none_or_missing_are_as_mmengines_defaults(missing):
    cfg = Config(dict(model=dict(), launcher='pytorch'))
    for field in (name for name, is_none in missing.items() if is_none):
        cfg[field] = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.distributed, 'is_initialized', lambda: True)
        join_cpu_processes(cfg)
    add_safeguards(cfg)
    assert cfg.env_cfg.dist_cfg.backend == 'gloo'
    assert cfg.default_hooks.checkpoint.type == 'SafeCheckpointHook'
    assert 'SeedHook' in [hook.type for hook in cfg.custom_hooks]
    assert cfg.custom_imports.imports == ['mmdet_consistent.engine.safe']


@pytest.mark.parametrize('loader', [None, dict(), dict(dataset=None)])
def test_config_without_a_test_set_is_named(loader):
    with pytest.raises(ConfigError, match=r'test_dataloader\.dataset is missing'):
        launch.tested_datasets(Config(dict(test_dataloader=loader)))


def test_tested_datasets_looks_into_joined_and_wrapped_sets():
    one, two = dict(type='CocoDataset'), dict(type='VOCDataset')
    wrapped = dict(type='RepeatDataset', dataset=two)
    joined = dict(type='ConcatDataset', datasets=[one, wrapped])
    cfg = Config(dict(test_dataloader=dict(dataset=joined)))
    assert launch.tested_datasets(cfg) == [one, two]
