from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import BaseLoop
from torch import nn

from mmdet_consistent.engine.checkpoint import CheckpointError
from mmdet_consistent.engine.hooks import ConfigCheckHook
from mmdet_consistent.engine.hooks.config_check import check_classes
from mmdet_consistent.utils.errors import ConfigError


class Detector(nn.Module):
    def __init__(self, num_classes=3, width=4, stages=1):
        super().__init__()
        self.backbone = nn.Conv2d(3, width, 1)
        self.bbox_head = nn.Conv2d(width, num_classes, 1)
        self.bbox_head.num_classes = num_classes
        self.bbox_head.later_stages = nn.ModuleList(
            nn.Conv2d(1, 1, 1) for _ in range(stages - 1)
        )


class Loop(BaseLoop):
    def __init__(self, dataset=None):
        self._runner = None
        self.dataloader = SimpleNamespace(dataset=dataset)

    def run(self):
        raise NotImplementedError


class Log:
    def __init__(self):
        self.text = ''

    def warning(self, text):
        self.text += text


def load(model, state_dict, *, training=False, resume=False):
    runner = SimpleNamespace(
        model=model,
        logger=Log(),
        _load_from='file.pth',
        _resume=resume,
        _train_loop=Loop() if training else dict(max_epochs=1),
    )
    ConfigCheckHook().after_load_checkpoint(runner, dict(state_dict=state_dict))
    return runner.logger.text


WAYS = dict(
    test=dict(), resume=dict(training=True, resume=True), tune=dict(training=True)
)


@pytest.mark.parametrize('way', WAYS)
def test_same_architecture_loads_silently(way):
    assert load(Detector(), Detector().state_dict(), **WAYS[way]) == ''


@pytest.mark.parametrize('way', ['test', 'tune'])
def test_file_of_a_baseline_may_lack_the_later_stages(way):
    text = load(Detector(stages=2), Detector().state_dict(), **WAYS[way])
    assert 'bbox_head.later_stages.0  missing      weight, bias' in text


@pytest.mark.parametrize('way', ['test', 'resume'])
def test_other_shapes_are_refused_with_a_table(way):
    with pytest.raises(CheckpointError, match='does not fit this model') as error:
        load(Detector(3), Detector(80).state_dict(), **WAYS[way])
    text = str(error.value)
    assert 'bbox_head.weight  80×4×1×1     3×4×1×1' in text
    assert 'file.pth' in text
    assert 'Use the config it was trained with' in text


def test_another_number_of_classes_can_be_fine_tuned():
    text = load(Detector(3), Detector(80).state_dict(), **WAYS['tune'])
    assert 'fits this model only in part' in text
    assert '80×4×1×1' in text


@pytest.mark.parametrize('way', WAYS)
def test_another_architecture_is_refused(way):
    other = {f'trunk.{i}': torch.zeros(1) for i in range(30)}
    with pytest.raises(CheckpointError, match='only 0 of the 4 parameters') as error:
        load(Detector(), other, **WAYS[way])
    assert 'left over: 0, 1, 2, 3, …' in str(error.value)


def dataset(*classes, **fields):
    return SimpleNamespace(metainfo=dict(classes=classes), **fields)


def test_number_of_classes_must_be_that_of_the_head():
    check_classes(Detector(3), dataset('a', 'b', 'c'), 'train_dataloader')
    check_classes(Detector(3), SimpleNamespace(metainfo={}), 'train_dataloader')
    with pytest.raises(
        ConfigError,
        match=r'num_classes=80, but train_dataloader.dataset has 3 classes \(a, b, c\)',
    ):
        check_classes(Detector(80), dataset('a', 'b', 'c'), 'train_dataloader')


def test_every_data_set_in_use_is_checked():
    good, bad = dataset('a', 'b', 'c'), dataset('a')
    for name in ('train', 'val', 'test'):
        loops = {f'_{n}_loop': Loop(good) for n in ('train', 'val')}
        loops['_test_loop'] = dict()  # not built
        runner = SimpleNamespace(model=Detector(3), **loops)
        ConfigCheckHook().before_run(runner)
        setattr(runner, f'_{name}_loop', Loop(bad))
        with pytest.raises(ConfigError, match=f'{name}_dataloader'):
            ConfigCheckHook().before_run(runner)


def test_classes_given_as_a_string_are_refused():
    one = SimpleNamespace(metainfo=dict(classes='cell'))
    with pytest.raises(ConfigError, match=r"classes=\('cell',\)"):
        check_classes(Detector(4), one, 'val_dataloader')


def test_class_names_unknown_to_the_annotation_file_are_refused():
    data = dataset('RBC', 'WBC', 'plates', cat_ids=[1, 2], ann_file='train.json')
    with pytest.raises(ConfigError, match=r'train\.json knows only 2 of the 3 classes'):
        check_classes(Detector(3), data, 'train_dataloader')
