"""The recipe for unlabelled images: SemiBaseDetector with a consistent RetinaNet."""

import json
import re
import shutil
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config

from mmdet_consistent.engine.checkpoint import load
from tests.support.processes import ROOT, run_tool
from tests.support.toy import same_weights

IMAGES = ROOT / 'data/bccd/images'
CLASSES = ('RBC', 'WBC', 'Platelets')


def recipe():
    """Return the recipe's code block, for the classes of the blood cells."""
    text = (ROOT / 'docs/recipes.md').read_text()
    blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    (code,) = (block for block in blocks if 'SemiBaseDetector' in block)
    assert "('cat', 'dog')" in code
    return code.replace("('cat', 'dog')", repr(CLASSES))


def shrink(value, names):
    """Set fields wherever they are in a config."""
    if isinstance(value, dict):
        value.update({k: v for k, v in names.items() if k in value})
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (dict, list)):
            shrink(item, names)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with data/mine/ of ten images and the recipe, made small."""
    folder = tmp_path_factory.mktemp('semi')
    mine = folder / 'data/mine'
    mine.mkdir(parents=True)
    (mine / 'images').symlink_to(IMAGES)
    coco = json.loads((ROOT / 'data/bccd/annotations/train.json').read_text())
    for name, images in (
        ('train', coco['images'][:4]),
        ('val', coco['images'][4:6]),
        ('unlabeled', coco['images'][6:10]),
    ):
        content = dict(images=images, categories=coco['categories'])
        if name != 'unlabeled':
            ids = {image['id'] for image in images}
            content['annotations'] = [
                a for a in coco['annotations'] if a['image_id'] in ids
            ]
        (mine / f'{name}.json').write_text(json.dumps(content))
    (folder / 'recipe.py').write_text(recipe())
    cfg = Config.fromfile(folder / 'recipe.py')
    shrink(cfg._cfg_dict, dict(num_workers=0, persistent_workers=False))
    for dataset in cfg.train_dataloader.dataset.datasets:
        shrink(dataset.pipeline, dict(scale=[(160, 100), (160, 120)]))
    shrink(cfg.val_dataloader.dataset.pipeline, dict(scale=(160, 120)))
    detector = cfg.model.detector
    detector.backbone.update(depth=18, base_channels=8, init_cfg=None)
    # Trained from scratch, so that the teacher needs the statistics as well.
    detector.backbone.update(frozen_stages=-1, norm_eval=False)
    cfg.custom_hooks = [dict(type='MeanTeacherHook', momentum=0.5, skip_buffer=False)]
    detector.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    detector.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
    cfg.model.semi_train_cfg.cls_pseudo_thr = 0.0
    detector.test_cfg.score_thr = 0.0
    cfg.train_cfg.update(max_iters=4, val_interval=4)
    cfg.param_scheduler = []
    cfg.randomness = dict(seed=0)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.default_hooks.logger.interval = 1
    fields = cfg.to_dict().items()
    (folder / 'small.py').write_text(''.join(f'{k} = {v!r}\n' for k, v in fields))
    return folder


@pytest.fixture(scope='module')
def trained(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # A visualizer lives as long as its process; this one is to be made anew.
        patch.setattr(DetLocalVisualizer, '_instance_dict', OrderedDict())
        run_tool(ROOT / 'tools/train.py', 'small.py', '--work-dir', 'work')
    return folder


def scalars(folder):
    (path,) = folder.glob('work/*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.works_with(
    "MMDetection's semi-supervised training",
    'learn from unlabelled images (`SemiBaseDetector`, the base of `SoftTeacher`)',
    'recipes.md#unlabelled-images',
)
def test_student_learns_from_both_images_and_teacher_follows(trained):
    *steps, validation = scalars(trained)
    assert len(steps) == 4
    names = ('loss_cls', 'loss_bbox', 'loss_bbox_s1')
    for branch in ('sup_', 'unsup_'):
        losses = [[step[branch + name] for name in names] for step in steps]
        assert np.isfinite(losses).all()
        assert np.max(losses, axis=0).min() > 0, branch
    assert {'teacher/coco/bbox_mAP', 'student/coco/bbox_mAP'} <= set(validation)
    first, last = (load(trained / f'work/iter_{i}.pth')['state_dict'] for i in (2, 4))
    for name in last:
        if name.startswith('student.') and name.endswith('weight'):
            teacher = name.replace('student.', 'teacher.')
            assert not torch.equal(first[teacher], last[teacher]), name
            # momentum 0.5: twice halfway from the teacher to a student
            assert not torch.equal(last[name], last[teacher]), name


@pytest.mark.slow
def test_semi_supervised_checkpoint_is_tested_with_its_teacher(trained, monkeypatch):
    monkeypatch.chdir(trained)
    run_tool(
        ROOT / 'tools/test.py', 'small.py', 'work/iter_4.pth', '--work-dir', 'tested',
        '--out', 'tested.pkl',
    )  # fmt: skip


@pytest.mark.slow
def test_resumed_semi_supervised_training_equals_an_uninterrupted_one(
    trained, monkeypatch
):
    monkeypatch.chdir(trained)
    (trained / 'resumed').mkdir()
    shutil.copy('work/iter_2.pth', 'resumed')
    run_tool(
        ROOT / 'tools/train.py', 'small.py', '--work-dir', 'resumed', '--resume',
        '--cfg-options', 'val_cfg.type=ValLoop',
    )  # fmt: skip
    first, second = (load(f'{d}/iter_4.pth')['state_dict'] for d in ('work', 'resumed'))
    assert same_weights(first, second)
