"""docs/troubleshooting.md: each literal message is the one that the stack raises."""

import json
import re
from pathlib import Path

import mmcv
import mmdet
import mmengine
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.config.utils import _get_package_and_cfg_path

import mmdet_consistent

pytestmark = pytest.mark.docs
PAGE = Path(__file__).resolve().parents[3] / 'docs/troubleshooting.md'
HEADINGS = re.findall(r'^### (.*)', PAGE.read_text(), re.MULTILINE)
MESSAGES = [text for heading in HEADINGS for text in re.findall('`(.*?)`', heading)]


class Unknown:
    """A type that no allow-list has."""


def coco(folder, **changes):
    """A data set of mmdet's with one image and one object."""
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)
    content = dict(
        images=[dict(id=1, file_name='0.jpg', width=20, height=20)],
        annotations=[box],
        categories=[dict(id=1, name='cell')],
    )
    content.update(changes.pop('content', {}))
    (folder / 'train.json').write_text(json.dumps(content))
    options = dict(
        metainfo=dict(classes=('cell',)),
        ann_file='train.json',
        data_prefix=dict(img=''),
    )
    return CocoDataset(data_root=str(folder), **{**options, **changes})


def incompatible_mmcv(folder, patch):
    patch.setattr(mmcv, '__version__', '9.0.0')
    source = Path(mmdet.__file__).read_text()
    exec(source, dict(__name__='mmdet', __package__='mmdet'))


def unregistered_class(folder, patch):
    MODELS.build(dict(type='NoSuchHead'))


def unimportable_module(folder, patch):
    (folder / 'a.py').write_text("custom_imports = dict(imports=['no_such_module'])")
    Config.fromfile(folder / 'a.py')


def unknown_package(folder, patch):
    patch.delitem(
        mmengine.config.utils.MODULE2PACKAGE, 'mmdet_consistent', raising=False
    )
    _get_package_and_cfg_path('mmdet_consistent::a.py')


def unknown_config(folder, patch):
    mmdet_consistent.config_path('no_such_config.py')


def unknown_argument(folder, patch):
    MODELS.build(dict(type='L1Loss', gamma=2))


def evaluator_over_a_list(folder, patch):
    (folder / 'base.py').write_text("val_evaluator = [dict(type='CocoMetric')]")
    (folder / 'a.py').write_text("_base_ = 'base.py'\nval_evaluator = dict(a=1)")
    Config.fromfile(folder / 'a.py')


def field_in_two_bases(folder, patch):
    for name in ('a', 'b'):
        (folder / f'{name}.py').write_text('model = dict(x=1)')
    (folder / 'c.py').write_text("_base_ = ['a.py', 'b.py']")
    Config.fromfile(folder / 'c.py')


def too_many_label_stages(folder, patch):
    head = dict(type='ConsistentRetinaHead', num_classes=1, in_channels=8)
    MODELS.build(dict(head, label_stages=3, reg_stages=1))


def classes_of_another_file(folder, patch):
    coco(folder, metainfo=dict(classes=('cat',)), filter_cfg=dict(filter_empty_gt=True))


def pipeline_that_drops_all(folder, patch):
    coco(folder, pipeline=[lambda results: None])[0]


def missing_image(folder, patch):
    coco(folder, pipeline=[dict(type='LoadImageFromFile')])[0]


def object_id_twice(folder, patch):
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)
    coco(folder, content=dict(annotations=[box, box]))


def object_without(field):
    box = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)

    def provoke(folder, patch):
        del box[field]
        data = coco(folder, content=dict(annotations=[box]))
        metric = CocoMetric(ann_file=str(folder / 'train.json'))
        metric.dataset_meta = data.metainfo
        found = dict(
            img_id=1,
            bboxes=torch.tensor([[1.0, 1, 10, 10]]).numpy(),
            scores=torch.ones(1).numpy(),
            labels=torch.zeros(1).long().numpy(),
        )
        metric.results = [(dict(width=20, height=20, img_id=1), found)]
        metric.compute_metrics(metric.results)

    return provoke


def type_that_is_not_allowed(folder, patch):
    torch.save(Unknown(), folder / 'a.pth')
    torch.load(folder / 'a.pth', weights_only=True)


def ssd_without_loss(folder, patch):
    patch.delattr(SSDHead, 'loss_cls')
    generator = dict(
        type='SSDAnchorGenerator',
        basesize_ratio_range=(0.2, 0.9),
        strides=[8],
        ratios=[[2]],
    )
    head = SSDHead(
        num_classes=1, in_channels=(4,), anchor_generator=generator, test_cfg={}
    )
    meta = dict(img_shape=(16, 16), scale_factor=(1.0, 1.0))
    outputs = head([torch.zeros(1, 4, 2, 2)])
    head.predict_by_feat(*outputs, batch_img_metas=[meta])


def one_value_per_channel(folder, patch):
    torch.nn.BatchNorm2d(2)(torch.zeros(1, 2, 1, 1))


PROVOKED = {
    'used but incompatible': incompatible_mmcv,
    'is not in the mmdet::model registry': unregistered_class,
    'Failed to import': unimportable_module,
    'get external package': unknown_package,
    'has no config': unknown_config,
    'unexpected keyword argument': unknown_argument,
    'cannot inherit from base': evaluator_over_a_list,
    'Duplicate key': field_in_two_bases,
    'regression stages': too_many_label_stages,
    'need at least one array': classes_of_another_file,
    'Cannot find valid image': pipeline_that_drops_all,
    'No such file or directory': missing_image,
    'are not unique': object_id_twice,
    'iscrowd': object_without('iscrowd'),
    'area': object_without('area'),
    'Weights only load failed': type_that_is_not_allowed,
    "'SSDHead' object": ssd_without_loss,
    'more than 1 value per channel': one_value_per_channel,
}


@pytest.mark.parametrize('part', PROVOKED)
def test_message_on_the_page_is_the_one_that_is_raised(part, tmp_path, monkeypatch):
    candidates = [message for message in MESSAGES if part in message]
    patterns = [re.escape(m).replace('…', '.*') for m in candidates]
    with pytest.raises(Exception) as error:  # noqa: PT011
        PROVOKED[part](tmp_path, monkeypatch)
    kind = type(error.value)
    names = {kind.__name__, f'{kind.__module__}.{kind.__name__}'}
    text = str(error.value).replace('`', '')
    said = [text] + [f'{name}: {text}' for name in names]
    assert any(re.match(p, s, re.DOTALL) for p in patterns for s in said), said


def test_page_has_an_answer_under_each_message():
    text = PAGE.read_text()
    for heading, answer in re.findall(r'^### (.*)\n\n(.+)', text, re.MULTILINE):
        assert '`' in heading
        assert not answer.startswith('#')
    assert len(HEADINGS) == len(set(HEADINGS)) > 30
