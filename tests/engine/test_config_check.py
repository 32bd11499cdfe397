from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.models.detectors import RPN, SemiBaseDetector
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


@given(st.integers(1, 29), st.integers(0, 30))
def test_load_from_takes_what_fits_however_little_it_is(fitting, others):
    model = nn.ParameterDict({f'p{i}': torch.zeros(1) for i in range(30)})
    state = {f'p{i}': torch.ones(1) for i in range(fitting)}
    state.update({f'q{i}': torch.ones(1) for i in range(others)})
    text = load(model, state, **WAYS['tune'])
    assert f'only in part ({fitting} of 30 parameters)' in text
    assert model['p0'].item() == 1


class Student(Detector):
    """As mmdet's RPN, it knows its head by another name."""

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in [n for n in state_dict if n.startswith(f'{prefix}rpn_head')]:
            state_dict[name.replace('rpn_head', 'bbox_head')] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)


def semi_supervised(detector):
    model = SemiBaseDetector.__new__(SemiBaseDetector)
    nn.Module.__init__(model)
    model.student, model.teacher = detector(), detector()
    return model


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_names_are_compared_as_the_model_loads_them(way, prefix):
    """A supervised file in a semi-supervised detector, an RPN's in a detector."""
    state = Detector().state_dict()
    theirs = {prefix + name: value for name, value in state.items()}
    assert load(semi_supervised(Detector), theirs, **WAYS[way]) == ''
    renamed = {n.replace('bbox_head', 'rpn_head'): v for n, v in theirs.items()}
    assert load(Student(), renamed, **WAYS[way]) == ''


def test_refusal_of_a_test_says_how_to_load_the_file_all_the_same():
    state = Detector().state_dict()
    del state['bbox_head.bias']
    with pytest.raises(CheckpointError, match=r"custom_hooks=\[dict\(type='ConfigC"):
        load(Detector(), state, **WAYS['test'])


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


def joined(*parts):
    return SimpleNamespace(datasets=parts, metainfo=[])


def test_data_sets_inside_of_wrappers_are_checked():
    good, bad = dataset('a', 'b', 'c'), dataset('a')
    check_classes(Detector(3), joined(good, good), 'train_dataloader')
    for wrapped in (
        joined(good, bad),
        joined(good, SimpleNamespace(dataset=bad)),
        SimpleNamespace(dataset=joined(bad), metainfo=good.metainfo),
    ):
        with pytest.raises(ConfigError, match=r'has 1 classes|of other classes'):
            check_classes(Detector(3), wrapped, 'train_dataloader')


def test_classes_are_compared_with_every_head_that_has_them():
    data, field = dataset('a', 'b'), 'train_dataloader'
    with pytest.raises(
        ConfigError, match=r'^model\.detector\.bbox_head\.num_classes=3'
    ):
        check_classes(semi_supervised(Detector), data, field)
    two_stage = nn.Module()
    two_stage.rpn_head = Detector(1)
    two_stage.roi_head = nn.Module()
    stages = [Detector(2).bbox_head, Detector(4).bbox_head]
    two_stage.roi_head.bbox_head = nn.ModuleList(stages[:1])
    check_classes(two_stage, data, field)
    two_stage.roi_head.bbox_head = nn.ModuleList(stages)
    with pytest.raises(
        ConfigError, match=r'^model\.roi_head\.bbox_head\.num_classes=4'
    ):
        check_classes(two_stage, data, field)


def test_detectors_without_classes_of_their_own_are_not_checked():
    alone = RPN.__new__(RPN)
    nn.Module.__init__(alone)
    alone.bbox_head = Detector(1).bbox_head
    worded = Detector(80)
    worded.language_model = nn.Identity()
    for model in (alone, worded, nn.Module()):
        check_classes(model, dataset('a', 'b'), 'train_dataloader')


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
