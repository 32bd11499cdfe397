"""A checkpoint and a data set that know the classes in another order are named."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.runner import BaseLoop
from torch import nn

from mmdet_consistent.engine.class_names import (
    dataset_names,
    other_names,
    trained_names,
)
from mmdet_consistent.engine.hooks import ConfigCheckHook

names = st.lists(st.sampled_from(['ant', 'bee', 'cat']), unique=True)


@pytest.mark.parametrize(
    ('checkpoint', 'expected'),
    [
        (dict(meta=dict(dataset_meta=dict(classes=('a', 'b')))), ['a', 'b']),
        (dict(meta=dict(dataset_meta=dict(CLASSES=['a', 'b']))), ['a', 'b']),
        (dict(meta=dict(CLASSES=('a', 'b'))), ['a', 'b']),  # mmdet 2
        (dict(meta=dict(CLASSES='a')), ['a']),
        (dict(meta=dict(dataset_meta=None)), []),
        (dict(meta=dict(dataset_meta=[dict(classes=('a',))])), []),
        (dict(meta=None), []),
        (dict(weight=1), []),
    ],
)
def test_trained_names_finds_the_classes_of_any_checkpoint(checkpoint, expected):
    assert trained_names(checkpoint) == expected


@pytest.mark.parametrize(
    ('metainfo', 'expected'),
    [
        (dict(classes=('a', 'b')), ['a', 'b']),
        ([dict(classes=('a',)), dict(classes=('a',), palette=[1])], ['a']),
        (dict(), []),
        (None, []),
    ],
)
def test_dataset_names_finds_the_classes_of_joined_sets_too(metainfo, expected):
    assert dataset_names(metainfo) == expected


@given(trained=names, tested=names)
def test_other_names_tells_both_orders_if_they_differ(trained, tested):
    sentence = other_names(trained, tested)
    if not trained or not tested or trained == tested:
        assert sentence == ''
    else:
        assert str(trained) in sentence
        assert str(tested) in sentence


class Loop(BaseLoop):
    def __init__(self, classes):
        self._runner = None
        dataset = SimpleNamespace(metainfo=dict(classes=classes))
        self.dataloader = SimpleNamespace(dataset=dataset)

    def run(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    ('way', 'classes', 'warned'),
    [
        ('test', ('dog', 'cat'), True),
        ('test', ('cat', 'cow'), True),
        ('test', ('cat', 'dog'), False),
        ('resume', ('dog', 'cat'), True),
        ('tune', ('dog', 'cat'), True),
        ('tune', ('cat', 'cow'), False),  # other classes are what it is for
        ('tune', ('cat', 'dog'), False),
    ],
)
def test_config_check_hook_warns_of_another_order_of_classes(way, classes, warned):
    model, log = nn.Linear(1, 1), []
    loop = Loop(classes)
    runner = SimpleNamespace(
        model=model,
        logger=SimpleNamespace(warning=log.append),
        _load_from='file.pth',
        _resume=way == 'resume',
        _train_loop=dict() if way == 'test' else loop,
        _val_loop=None if way == 'test' else loop,
        _test_loop=loop if way == 'test' else None,
    )
    meta = dict(dataset_meta=dict(classes=('cat', 'dog')))
    checkpoint = dict(state_dict=model.state_dict(), meta=meta)
    ConfigCheckHook().after_load_checkpoint(runner, checkpoint)
    assert len(log) == warned, 'once, however many loops there are'
    assert all(text.startswith('file.pth was trained with') for text in log)
