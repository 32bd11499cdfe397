"""Checkpoints are files, or addresses as mmengine's loaders take them."""

import functools
import http.server
import threading

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import nn

from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.checkpoint import is_there, load_from_http, local_path


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder and its address; downloads go to a cache of their own."""
    folder = tmp_path / 'site'
    folder.mkdir()
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


def save(path, value):
    path.parent.mkdir(exist_ok=True)
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, value)
    torch.save(dict(state_dict=model.state_dict()), path)


def loaded_from(address):
    make_safe()
    model = nn.Linear(1, 1)
    load_checkpoint(model, address, map_location='cpu')
    return model.weight.item()


def test_files_and_addresses_are_there_and_misspelt_files_are_not(tmp_path):
    save(tmp_path / 'a file.pth', 3.0)
    path = tmp_path / 'a file.pth'
    for name in (path, str(path), path.as_uri(), f'file://{path}'):
        assert is_there(name)
        assert local_path(name) == path
        assert loaded_from(str(name)) == 3.0
    for name in ('https://host/w.pth', 'torchvision://resnet50', 's3://bucket/w.pth'):
        assert is_there(name)
        assert local_path(name) is None
    for name in ('nowhere.pth', f'file://{tmp_path}/nowhere.pth', tmp_path):
        assert not is_there(name)


def test_checkpoints_of_the_same_name_are_not_mixed_up(site):
    folder, address = site
    for part, value in (('first', 1.0), ('second', 2.0)):
        save(folder / part / 'epoch_12.pth', value)
    for part, value in (('first', 1.0), ('second', 2.0)):
        assert loaded_from(f'{address}/{part}/epoch_12.pth') == value
    (folder / 'first/epoch_12.pth').unlink()
    assert loaded_from(f'{address}/first/epoch_12.pth') == 1.0, 'from the cache'


def test_file_whose_name_has_a_hash_is_found_where_torch_keeps_it(site, tmp_path):
    _, address = site
    cached = tmp_path / 'cache/hub/checkpoints/resnet-0676ba61.pth'
    cached.parent.mkdir(parents=True)
    save(cached, 4.0)
    assert 'state_dict' in load_from_http(f'{address}/models/resnet-0676ba61.pth')
