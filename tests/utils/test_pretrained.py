"""ImageNet weights by torchvision's names."""

import builtins

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import checkpoint

from mmdet_consistent import config_path, config_root
from mmdet_consistent.utils import pretrained

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


@pytest.fixture(scope='module')
def vgg16():
    """Random weights under torchvision's names and of its shapes, small in memory."""
    generator = torch.Generator().manual_seed(0)
    state, width = {}, 3
    for place, out in zip(CONVOLUTIONS, WIDTHS):
        weight = torch.rand(out, width, 3, 3, generator=generator)
        state[f'features.{place}.weight'] = weight
        state[f'features.{place}.bias'] = torch.rand(out, generator=generator)
        width = out
    for place, columns in (('0', 25088), ('3', 4096), ('6', 4096)):
        rows = 1000 if place == '6' else 4096
        column = torch.rand(1, columns, generator=generator)
        state[f'classifier.{place}.weight'] = column.repeat(rows, 1)
        state[f'classifier.{place}.bias'] = torch.arange(float(rows))
    return state


@pytest.fixture
def addresses(monkeypatch, vgg16):
    """Serve the weights in place of a download, and record the addresses."""
    found = []

    def load_from_http(address, map_location=None, **_):
        found.append(address)
        return vgg16

    monkeypatch.setattr(checkpoint, 'load_from_http', load_from_http)
    return found


@pytest.fixture
def broken_torchvision(monkeypatch):
    def raise_error(name, *args, original=builtins.__import__, **options):
        if name == 'torchvision':
            raise RuntimeError('operator torchvision::nms does not exist')
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, '__import__', raise_error)


@pytest.mark.parametrize('name', ['resnet50', 'resnet101'])
def test_torchvision_names_need_no_torchvision(addresses, broken_torchvision, name):
    checkpoint.CheckpointLoader.load_checkpoint(f'torchvision://{name}')
    (address,) = addresses
    assert address.startswith(f'https://download.pytorch.org/models/{name}-')


@pytest.mark.parametrize('name', ['ssd300_vgg16.py', 'con_ssd512_vgg16.py'])
def test_ssd_config_starts_from_torchvisions_vgg16(addresses, name, vgg16):
    cfg = Config.fromfile(config_path(name)).model
    backbone = MODELS.build(cfg.backbone)
    backbone.init_weights()
    assert 'vgg16-' in addresses[0]
    state = backbone.state_dict()
    for key, value in vgg16.items():
        if key.startswith('features.'):
            assert torch.equal(state[key], value), key
    # torchvision's weights expect images that are divided by these.
    assert cfg.data_preprocessor.std == [58.395, 57.12, 57.375]


def test_fully_connected_layers_become_every_fourth_channel(vgg16):
    state = pretrained.to_ssd_vgg(vgg16)
    assert state['features.31.weight'].shape == (1024, 512, 3, 3)
    assert state['features.33.weight'].shape == (1024, 1024, 1, 1)
    for place in ('31', '33'):
        assert state[f'features.{place}.bias'].tolist() == list(range(0, 4096, 4))
    grid = vgg16['classifier.0.weight'][0].view(512, 49)
    wanted = grid[:, [0, 3, 6, 21, 24, 27, 42, 45, 48]].view(512, 3, 3)
    assert torch.equal(state['features.31.weight'][5], wanted)
    wanted = vgg16['classifier.3.weight'][0, ::4, None, None]
    assert torch.equal(state['features.33.weight'][7], wanted)


def test_no_config_depends_on_openmmlabs_download_host():
    for path in sorted(config_root().rglob('*.py')):
        text = Config.fromfile(path).pretty_text
        assert 'open-mmlab://' not in text, path
        assert 'download.openmmlab' not in text, path
