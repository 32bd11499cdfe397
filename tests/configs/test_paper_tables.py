"""The configs against the paper's settings, held in configs/paper_tables.json."""

import functools
import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config

register_all_modules(init_default_scope=True)

ROOT = Path(__file__).resolve().parents[2]
ROWS = json.loads((ROOT / 'configs/paper_tables.json').read_text())
# What the paper doesn't have: the baselines and sizes that complete a series.
NOT_IN_A_TABLE = {
    'configs/con_ssd300_vgg16.py',
    'configs/retinanet_r50_fpn_jitter_18e.py',
    'configs/ssd300_vgg16.py',
}
LOADING = {'LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs'}

every_row = pytest.mark.parametrize(
    'row', ROWS, ids=[f'table{r["table"]}-{r["row"]}' for r in ROWS]
)


@functools.cache
def load_file(path):
    return Config.fromfile(path)


def load(row):
    return load_file(ROOT / row['config'])


def training_set(cfg):
    """The training dataset and how often an epoch goes through it."""
    dataset = cfg.train_dataloader.dataset
    if dataset.type == 'RepeatDataset':
        return dataset.dataset, dataset.times
    return dataset, 1


def resizes(pipeline):
    """Scales of the pipeline's one resize, and whether it keeps the ratio."""
    (step,) = [s for s in pipeline if 'Resize' in s.type]
    scales = step.scales if step.type == 'RandomChoiceResize' else [step.scale]
    return [tuple(scale) for scale in scales], step.keep_ratio


def test_paper_tables_hold_every_row_of_every_table():
    assert Counter(r['table'] for r in ROWS) == {1: 4, 2: 3, 3: 4, 4: 8, 5: 4, 6: 3}
    assert len({(r['table'], r['row']) for r in ROWS}) == len(ROWS)


def test_each_setting_has_one_config():
    pairs = {(r['config'], json.dumps(r['settings'])) for r in ROWS}
    assert len(pairs) == len({c for c, _ in pairs}) == len({s for _, s in pairs})


def test_every_shipped_config_is_a_row_or_an_exception():
    files = [*ROOT.glob('configs/*.py'), *ROOT.glob('configs/ablations/*.py')]
    shipped = {str(f.relative_to(ROOT)) for f in files}
    assert shipped == {r['config'] for r in ROWS} | NOT_IN_A_TABLE


@pytest.mark.docs
@every_row
def test_config_comment_names_its_table_and_figure(row):
    lines = (ROOT / row['config']).read_text().splitlines()
    comment = ' '.join(line for line in lines if line.startswith('#'))
    assert re.search(rf'\bTable {row["table"]}\b', comment)
    assert f'{row["metrics"]["AP"]} AP' in comment


@every_row
def test_config_has_the_image_sizes_and_augmentation_of_its_row(row):
    settings, cfg = row['settings'], load(row)
    train = training_set(cfg)[0].pipeline
    short = settings['short_side']
    jitter = settings['scale_jitter'] or [short]
    if settings['detector'] == 'SSD512':
        assert settings['augmentation'] == 'ssd'
        mmdet = get_config('mmdet::ssd/ssd512_coco.py')
        assert train == training_set(mmdet)[0].pipeline
        long, keep_ratio = short, False
    else:
        assert settings['augmentation'] == 'flip'
        types = {s.type for s in train} - LOADING
        assert types == {'RandomFlip', 'RandomChoiceResize' if jitter[1:] else 'Resize'}
        long, keep_ratio = {500: 833, 800: 1333}[short], True
    (flip,) = [s for s in train if s.type == 'RandomFlip']
    assert flip.prob == 0.5
    assert resizes(train) == ([(long, side) for side in jitter], keep_ratio)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        pipeline = loader.dataset.pipeline
        assert resizes(pipeline) == ([(long, short)], keep_ratio)
        assert {s.type for s in pipeline} - LOADING == {'Resize'}


@pytest.mark.parametrize(
    'name',
    [
        'retinanet_r50_fpn',
        'retinanet_r50_fpn_500',
        'retinanet_r50_fpn_jitter_18e',
        'ssd512_r50',
    ],
)
def test_pipelines_resize_and_flip_an_image(name):
    cfg = load_file(ROOT / f'configs/{name}.py')
    image = str(next((ROOT / 'data/bccd/images').glob('*.jpg')))
    box = dict(bbox=[40, 40, 120, 140], bbox_label=3, ignore_flag=0)

    def output(pipeline):
        results = dict(img_path=image, img_id=1, instances=[box])
        return Compose(pipeline)(results)['data_samples']

    train, test = training_set(cfg)[0].pipeline, cfg.test_dataloader.dataset.pipeline
    random.seed(0)
    np.random.seed(0)
    samples = [output(train) for _ in range(12)]
    expected = {scale[1] for scale in resizes(train)[0]}
    assert {min(s.img_shape) for s in samples} <= expected
    assert len({s.img_shape for s in samples}) >= min(2, len(expected))
    assert {s.flip for s in samples} == {True, False}
    assert all(s.gt_instances.labels.tolist() == [3] for s in samples)
    assert min(output(test).img_shape) == resizes(test)[0][0][1]


@every_row
def test_config_has_the_schedule_of_its_row(row):
    settings, cfg = row['settings'], load(row)
    _, times = training_set(cfg)
    warmup, steps = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs * times == settings['epochs'] == steps.end * times
    assert [m * times for m in steps.milestones] == settings['milestones']
    assert warmup.type == 'LinearLR'
    images = cfg.train_dataloader.batch_size * settings['gpus']
    assert images == settings['images_per_batch'] == cfg.auto_scale_lr.base_batch_size
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('SGD', settings['lr'])
    if settings['detector'] == 'RetinaNet':
        # Detectron: 0.01 for 16 images; the lr is proportional to the batch.
        assert optimizer.lr / images == 0.01 / 16


@every_row
def test_config_has_the_backbone_of_its_row(row):
    backbone = load(row).model.backbone
    kind, depth = row['settings']['backbone'].split('-')
    assert (backbone.type, backbone.depth) == (
        {'ResNet': 'ResNet', 'VGG': 'SSDVGG'}[kind],
        int(depth),
    )
    assert backbone.init_cfg.checkpoint == {
        'ResNet': f'torchvision://resnet{depth}',
        'VGG': 'torchvision-ssd://vgg16',
    }.get(kind)


@every_row
def test_config_measures_what_its_row_reports(row):
    cfg = load(row)
    evaluators = cfg.val_evaluator
    if not isinstance(evaluators, list):
        evaluators = [evaluators]
    assert evaluators[0].type == 'CocoMetric'
    at = {f'AP{m.iou_thrs[0] * 100:.0f}': m.prefix for m in evaluators[1:]}
    standard = {'AP', 'AP50', 'AP75', 'APs', 'APm', 'APl'}
    assert set(row['metrics']) - standard <= set(at)
    assert all(prefix == f'coco{name[2:]}' for name, prefix in at.items())
    assert cfg.val_dataloader.dataset.ann_file.endswith('instances_val2017.json')
    ann_file = cfg.test_dataloader.dataset.ann_file
    assert row['split'] in ann_file


@pytest.mark.parametrize('name', ['con_ssd512_r50', 'ablations/table3_cls3_reg2'])
def test_config_loads_from_any_working_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = ROOT / f'configs/{name}.py'
    assert Config.fromfile(path).to_dict() == load_file(path).to_dict()
