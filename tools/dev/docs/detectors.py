"""The table of docs/choosing.md: MMDetection's published figures."""

from pathlib import Path

import mmdet
import yaml
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_consistent.utils.tables import markdown_table

CONFIGS = Path(mmdet.__file__).parent / '.mim/configs'
# Name to config, by rising AP.
DETECTORS = {
    'SSD512': 'ssd/ssd512_coco.py',
    'RetinaNet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'Faster R-CNN': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'YOLOF': 'yolof/yolof_r50-c5_8xb8-1x_coco.py',
    'FreeAnchor': 'free_anchor/freeanchor_r50_fpn_1x_coco.py',
    'ATSS': 'atss/atss_r50_fpn_1x_coco.py',
    'GFL': 'gfl/gfl_r50_fpn_1x_coco.py',
    'PAA': 'paa/paa_r50_fpn_1x_coco.py',
    'VFNet': 'vfnet/vfnet_r50_fpn_1x_coco.py',
    'DDOD': 'ddod/ddod_r50_fpn_1x_coco.py',
    'TOOD': 'tood/tood_r50_fpn_1x_coco.py',
}


def table() -> str:
    """Render name, published box AP, config and consistent version of each detector."""
    rows = [
        [name, str(published_ap(config)), f'`{config}`', consistent_version(config)]
        for name, config in DETECTORS.items()
    ]
    header = ['detector', 'AP', "MMDetection's config", 'consistent version']
    return markdown_table(header, rows)


def published_ap(config: str) -> float:
    """Return the box AP on COCO that MMDetection publishes for a config."""
    path = CONFIGS / config
    models = yaml.safe_load((path.parent / 'metafile.yml').read_text())['Models']
    (model,) = (m for m in models if m['Config'] == f'configs/{config}')
    return next(r['Metrics']['box AP'] for r in model['Results'])


def consistent_version(config: str) -> str:
    """Return the consistent class for a config's dense head, or a dash."""
    model = Config.fromfile(CONFIGS / config).model
    head = f'Consistent{(model.get("rpn_head") or model.bbox_head).type}'
    return f'`{head}`' if MODELS.get(head) else '–'
