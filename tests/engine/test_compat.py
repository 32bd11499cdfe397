import pickle

import numpy as np
import pytest
import torch
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import MessageHub

import mmdet_consistent  # noqa: F401
from mmdet_consistent.engine.restricted_pickle import HAS_ALLOW_LIST

needs_allow_list = pytest.mark.skipif(
    not HAS_ALLOW_LIST, reason='torch < 2.4 has no allow-list for torch.load'
)


@needs_allow_list
def test_mmengines_message_hub_loads_under_weights_only(tmp_path):
    hub = MessageHub('test_compat')
    for value in (1.0, np.float32(2), np.float64(3)):
        hub.update_scalar('train/loss', value)
    torch.save(dict(message_hub=hub.state_dict()), tmp_path / 'c.pth')
    loaded = torch.load(tmp_path / 'c.pth', weights_only=True)
    assert loaded['message_hub']['log_scalars']['train/loss'].data[0].tolist() == [
        1,
        2,
        3,
    ]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_a_checkpoint_still_cannot_run_code(tmp_path):
    torch.save(dict(model=Malicious(tmp_path / 'owned')), tmp_path / 'bad.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'bad.pth', weights_only=True)
    assert not (tmp_path / 'owned').exists()


def test_the_package_is_known_to_mmengines_config():
    assert MODULE2PACKAGE['mmdet_consistent'] == 'mmdet_consistent'
