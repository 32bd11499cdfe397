"""Checked data sets leave out bad data, or refuse them, as their option says."""

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules

from mmdet_consistent import CheckedCocoDataset
from mmdet_consistent.datasets.problems import DataError
from tests.support import bad_data

register_all_modules()
PIPELINE = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_path',)),
]


def build(root, kind='coco', **options):
    options.setdefault('pipeline', PIPELINE)
    common = dict(
        data_root=str(root), metainfo=dict(classes=('cell',)), serialize_data=True
    )
    if kind == 'coco':
        common.update(
            type='CheckedCocoDataset',
            ann_file='train.json',
            data_prefix=dict(img='images/'),
        )
    else:
        common.update(
            type='CheckedVOCDataset',
            ann_file='ImageSets/Main/train.txt',
            data_prefix=dict(sub_data_root=''),
        )
    return DATASETS.build(dict(common, **options))


def with_bad_box(root, kind):
    if kind == 'coco':
        content = bad_data.coco(root)
        content['annotations'][3]['bbox'] = [float('nan'), 4, 10, 10]
        bad_data.save(root, content)
    else:
        bad_data.voc(root)
        boxes = [(4, 4, 14, 14), (9, 9, 9, 9)]
        bad_data.edit_voc(root, 'n1', boxes=boxes)


@pytest.mark.parametrize('kind', ['coco', 'voc'])
def test_good_data_load_as_in_mmdet(tmp_path, kind):
    if kind == 'coco':
        bad_data.save(tmp_path, bad_data.coco(tmp_path))
    else:
        bad_data.voc(tmp_path)
    checked = build(tmp_path, kind, check_images='full')
    plain = 'CocoDataset' if kind == 'coco' else 'VOCDataset'
    options = dict(ann_file=checked.ann_file, data_prefix=checked.data_prefix)
    mmdets = DATASETS.build(
        dict(
            type=plain,
            metainfo=dict(classes=('cell',)),
            pipeline=PIPELINE,
            **options,
        )
    )
    assert not checked.problems
    assert len(checked) == len(mmdets) == 3
    assert [checked.get_data_info(i) for i in range(3)] == [
        mmdets.get_data_info(i) for i in range(3)
    ]


@pytest.mark.parametrize('kind', ['coco', 'voc'])
@pytest.mark.parametrize('test_mode', [False, True])
def test_bad_box_is_left_out(tmp_path, kind, test_mode):
    with_bad_box(tmp_path, kind)
    dataset = build(tmp_path, kind, test_mode=test_mode)
    counts = [len(dataset.get_data_info(i)['instances']) for i in range(3)]
    assert counts == [2, 1, 2]
    (problem,) = dataset.problems
    assert problem.where.startswith('object')
    boxes = dataset[1]['data_samples'].gt_instances.bboxes.tensor
    assert boxes.isfinite().all()
    assert len(boxes) == 1
    assert tmp_path.name in dataset.ann_file  # not that of the cleaned copy


@pytest.mark.parametrize('kind', ['coco', 'voc'])
def test_on_bad_data_refuse_refuses_a_bad_box(tmp_path, kind):
    with_bad_box(tmp_path, kind)
    with pytest.raises(DataError, match=r"1 problems, and on_bad_data='refuse'"):
        build(tmp_path, kind, on_bad_data='refuse')


@pytest.mark.parametrize('kind', ['coco', 'voc'])
def test_bad_image_is_left_out_in_training_and_refused_in_testing(tmp_path, kind):
    if kind == 'coco':
        bad_data.save(tmp_path, bad_data.coco(tmp_path))
        path = tmp_path / 'images' / '1.jpg'
    else:
        bad_data.voc(tmp_path)
        path = tmp_path / 'JPEGImages' / 'n1.jpg'
    bad_data.spoil_image(path, 'truncated')
    dataset = build(tmp_path, kind)
    assert [dataset[i]['inputs'].shape[0] for i in range(2)] == [3, 3]
    assert len(dataset) == 2
    assert dataset.problems[0].kind == 'truncated image'
    with pytest.raises(DataError, match='would change the result'):
        build(tmp_path, kind, test_mode=True)


def test_image_that_fails_to_load_is_named_and_replaced(tmp_path, capsys):
    bad_data.save(tmp_path, bad_data.coco(tmp_path))
    options = dict(check_images='no')
    dataset, refusing = (
        build(tmp_path, on_bad_data=value, **options) for value in ('drop', 'refuse')
    )
    testing = build(tmp_path, test_mode=True, **options)
    bad_data.spoil_image(tmp_path / 'images' / '1.jpg', 'foreign')
    np.random.seed(0)
    other = dataset[1]['data_samples'].img_path
    assert not other.endswith('1.jpg')
    assert dataset.problems[0].kind == 'corrupt image'
    assert f'{tmp_path}/images/1.jpg' in str(dataset.problems[0])
    for strict in (refusing, testing):
        with pytest.raises(DataError, match=r'images/1\.jpg'):
            strict[1]


def test_error_of_a_transform_passes_through(tmp_path):
    bad_data.save(tmp_path, bad_data.coco(tmp_path))

    def broken(results):
        raise RuntimeError('a bug in a transform')

    dataset = build(tmp_path, pipeline=[broken])
    with pytest.raises(RuntimeError, match='a bug in a transform'):
        dataset[0]
    assert not dataset.problems


@pytest.mark.parametrize('kind', ['coco', 'voc'])
def test_data_set_without_a_good_image_is_an_error(tmp_path, kind):
    if kind == 'coco':
        bad_data.save(tmp_path, bad_data.coco(tmp_path))
    else:
        bad_data.voc(tmp_path)
    for path in tmp_path.rglob('*.jpg'):
        path.unlink()
    with pytest.raises(DataError, match='not one'):
        build(tmp_path, kind)


def test_checked_mixin_works_with_a_subclass_of_the_user(tmp_path):
    class Mine(CocoDataset):
        def load_data_list(self):
            return super().load_data_list()[:2]

    class CheckedMine(CheckedCocoDataset, Mine):
        pass

    with_bad_box(tmp_path, 'coco')
    dataset = CheckedMine(
        data_root=str(tmp_path),
        ann_file='train.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('cell',)),
    )
    assert len(dataset) == 2
    assert len(dataset.problems) == 1


def test_name_twice_in_the_list_is_left_out(tmp_path):
    bad_data.voc(tmp_path)
    (tmp_path / 'ImageSets/Main/train.txt').write_text('n0\nn1\nn0\n')
    dataset = build(tmp_path, 'voc')
    assert len(dataset) == 2
    assert dataset.problems[0].kind == 'duplicate image id'


def test_repeated_ids_are_renumbered_in_training_and_refused_in_testing(tmp_path):
    content = bad_data.coco(tmp_path)
    for number, entry in enumerate(content['annotations']):
        entry['id'] = number % 2
    bad_data.save(tmp_path, content)
    dataset = build(tmp_path)
    counts = [len(dataset.get_data_info(i)['instances']) for i in range(3)]
    assert counts == [2, 2, 2]
    assert {p.kind for p in dataset.problems} == {
        'duplicate object id',
        'unusable object id',
    }
    with pytest.raises(DataError, match=r'check_data FILE --write NEW'):
        build(tmp_path, test_mode=True)


@pytest.mark.parametrize('kind', ['coco', 'voc'])
@pytest.mark.parametrize('filter_cfg', [None, dict(filter_empty_gt=True)])
def test_data_set_without_a_good_object_is_an_error(tmp_path, kind, filter_cfg):
    if kind == 'coco':
        content = bad_data.coco(tmp_path)
        for entry in content['annotations']:
            entry['bbox'] = [0.1, 0.1, 0.5, 0.5]  # normalised
        bad_data.save(tmp_path, content)
    else:
        for name in bad_data.voc(tmp_path):
            bad_data.edit_voc(tmp_path, name, boxes=[(0.1, 0.1, 0.5, 0.5)])
    with pytest.raises(DataError, match='not one object can be used'):
        build(tmp_path, kind, filter_cfg=filter_cfg)
    assert len(build(tmp_path, kind, test_mode=True)) == 3


@pytest.mark.parametrize('kind', ['coco', 'voc'])
def test_images_without_objects_are_used_unless_the_config_filters_them(tmp_path, kind):
    if kind == 'coco':
        content = bad_data.coco(tmp_path)
        del content['annotations']
        bad_data.save(tmp_path, content)
    else:
        for name in bad_data.voc(tmp_path):
            bad_data.edit_voc(tmp_path, name)
    assert len(build(tmp_path, kind)) == 3
    with pytest.raises(DataError, match=r"filter_cfg=\{'filter_empty_gt': True\}"):
        build(tmp_path, kind, filter_cfg=dict(filter_empty_gt=True))


@pytest.mark.parametrize('option', ['on_bad_data', 'check_images'])
def test_unknown_option_is_refused(tmp_path, option):
    with pytest.raises(ValueError, match=f"{option} must be one of .* got 'maybe'"):
        build(tmp_path, **{option: 'maybe'})
