"""A detector small enough to run on real images in a test."""

from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

ROOT = Path(__file__).resolve().parents[2]


def tiny_config(name='con_retinanet_bccd'):
    """Return a quickstart config with few channels."""
    cfg = Config.fromfile(ROOT / f'configs/quickstart/{name}.py')
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
    cfg.test_dataloader.batch_size = 2
    dataset = cfg.test_dataloader.dataset
    dataset.data_root = str(ROOT / dataset.data_root)
    return cfg


def save_weights(cfg, path):
    """Save random weights that give many detections, and return their path."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    head = model.bbox_head
    # Scores around one half, and boxes that move a little.
    torch.nn.init.normal_(head.retina_cls.bias, 0.0, 0.5)
    torch.nn.init.normal_(head.retina_reg.bias, 0.0, 0.1)
    torch.save(dict(state_dict=model.state_dict()), path)
    return path
