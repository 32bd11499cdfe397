"""Labels mean the classes of the config, in every wrapper, or the set is refused."""

import json
from types import SimpleNamespace

import pytest
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_consistent import CheckedCocoDataset
from mmdet_consistent.datasets.check import check_dataset_config, use_checked
from mmdet_consistent.datasets.classes import dataset_classes
from mmdet_consistent.datasets.problems import DataError
from mmdet_consistent.utils.errors import ConfigError
from tests.support import bad_data

register_all_modules()
CLASSES = ('cell', 'dog')
WRAPPERS = {
    'none': lambda inner: inner,
    'repeat': lambda inner: dict(type='RepeatDataset', times=2, dataset=inner),
    'concat': lambda inner: dict(type='ConcatDataset', datasets=[inner, inner]),
    'balanced': lambda inner: dict(
        type='ClassBalancedDataset', oversample_thr=0.1, dataset=inner
    ),
    'mix': lambda inner: dict(
        type='MultiImageMixDataset',
        pipeline=[],
        dataset=dict(type='RepeatDataset', times=1, dataset=inner),
    ),
}
# Categories that give at least one label of another class in mmdet, or none.
WRONG = {
    'order': ('dog', 'cell'),
    'first missing': ('dog',),
    'misspelt': ('Cell', 'dog'),
    'twice': ('cell', 'cell', 'dog'),
    'none known': ('a', 'b'),
}


def config(root, names, kind='CheckedCocoDataset', categories=None, **options):
    content = bad_data.coco(root)
    content['categories'] = categories or [
        dict(id=i, name=name) for i, name in enumerate(names, start=1)
    ]
    path = root / 'train.json'
    path.write_text(json.dumps(content))
    options = dict(metainfo=dict(classes=CLASSES), pipeline=[], **options)
    prefix = dict(img=str(root / 'images'))
    return dict(type=kind, ann_file=str(path), data_prefix=prefix, **options)


@pytest.mark.parametrize('wrapper', WRAPPERS)
@pytest.mark.parametrize('names', WRONG.values(), ids=WRONG)
def test_labels_of_other_classes_are_refused(tmp_path, wrapper, names):
    inner = config(tmp_path, names)
    with pytest.raises(DataError, match=r'train\.json: categories: labels of other'):
        DATASETS.build(WRAPPERS[wrapper](inner))
    found = check_dataset_config(WRAPPERS[wrapper](dict(inner, type='CocoDataset')))
    assert {p.kind for _, problems, _ in found for p in problems} == {
        'labels of other classes'
    }


def test_category_id_twice_is_refused(tmp_path):
    twice = [dict(id=1, name='cell'), dict(id=1, name='dog')]
    with pytest.raises(DataError, match='twice'):
        DATASETS.build(config(tmp_path, (), categories=twice))


def test_categories_that_are_no_classes_may_stand_anywhere(tmp_path):
    data = DATASETS.build(config(tmp_path, ('cell', 'tree', 'dog', 'tree')))
    assert not data.problems
    assert dataset_classes(data, 'train_dataloader.dataset') == CLASSES


def test_last_class_may_be_missing_in_one_of_several_training_files(tmp_path):
    (tmp_path / 'a').mkdir()
    part, whole = config(tmp_path / 'a', ('cell',)), config(tmp_path, CLASSES)
    joined = DATASETS.build(dict(type='ConcatDataset', datasets=[part, whole]))
    assert dataset_classes(joined, 'train_dataloader.dataset') == CLASSES
    assert [p.kind for p in joined.datasets[0].problems] == ['class without a category']
    with pytest.raises(ConfigError, match='knows only 1 of the 2 classes'):
        dataset_classes(DATASETS.build(part), 'train_dataloader.dataset')
    with pytest.raises(DataError, match='no dog'):  # mmdet's metric would fail
        DATASETS.build(dict(part, test_mode=True))


@pytest.mark.parametrize('classes', ['cell', ('cell',)])
def test_one_class_must_be_a_tuple(tmp_path, classes):
    fields = dict(config(tmp_path, ('cell',)), metainfo=dict(classes=classes))
    if classes == ('cell',):
        assert not DATASETS.build(fields).problems
    else:
        with pytest.raises(DataError, match=r"write classes=\('cell',\)"):
            DATASETS.build(fields)


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_joined_sets_may_differ_in_all_but_the_classes(wrapper):
    def part(*classes, **meta):
        return SimpleNamespace(metainfo=dict(classes=classes, **meta))

    def joined(*parts):
        meta = [p.metainfo for p in parts]  # as mmdet has it if they differ
        inner = SimpleNamespace(datasets=list(parts), metainfo=meta)
        return inner if wrapper == 'none' else SimpleNamespace(dataset=inner)

    same = joined(part('a', 'b'), part('a', 'b', palette=[(1, 2, 3)]))
    assert dataset_classes(same, 'train_dataloader.dataset') == ('a', 'b')
    with pytest.raises(ConfigError, match=r'\(a, b\) and \(b, a\)'):
        dataset_classes(joined(part('a', 'b'), part('b', 'a')), 'x')
    with pytest.raises(ConfigError, match=r"classes=\('a',\)"):
        dataset_classes(
            joined(part('a'), SimpleNamespace(metainfo=dict(classes='a'))), 'x'
        )


@pytest.mark.parametrize(
    ('dataset', 'metric', 'scope'),
    [
        ('CocoDataset', 'CocoMetric', ''),
        ('mmdet.CocoDataset', 'mmdet.CocoMetric', 'mmdet.'),
        (CocoDataset, CocoMetric, 'mmdet.'),
        ('CheckedCocoDataset', 'CheckedCocoMetric', ''),
    ],
)
@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_data_sets_and_metrics_are_replaced_however_they_are_named(
    dataset, metric, scope, wrapper
):
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=WRAPPERS[wrapper](dict(type=dataset))),
            val_dataloader=dict(dataset=WRAPPERS[wrapper](dict(type=dataset))),
            val_evaluator=[dict(type=metric), dict(type='ConsistencyMetric')],
            test_dataloader=None,
        )
    )
    use_checked(cfg, splits=('train', 'val', 'test'))
    text = str(cfg.to_dict())
    assert f"'type': '{scope}CheckedCocoDataset'" in text
    assert "'type': 'CocoDataset'" not in text
    assert cfg.val_evaluator[0].type == f'{scope}CheckedCocoMetric'
    assert cfg.val_evaluator[1].type == 'ConsistencyMetric'


def test_data_set_that_cannot_be_checked_is_named(monkeypatch):
    class Mine(CocoDataset):
        pass

    class CheckedMine(CheckedCocoDataset, Mine):
        pass

    messages = []
    target = 'mmdet_consistent.datasets.check.print_log'
    monkeypatch.setattr(target, lambda text, *_: messages.append(text))
    for kind in (Mine, 'NoSuchDataset', CheckedMine):
        cfg = Config(dict(train_dataloader=dict(dataset=dict(type=kind))))
        use_checked(cfg)
        assert cfg.train_dataloader.dataset == dict(type=kind)
    first, second = messages
    assert first.startswith('train_dataloader: the data of a Mine are not checked')
    assert 'NoSuchDataset' in second
