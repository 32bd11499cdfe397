"""Write a trained detector to one ONNX file, for any batch and image size.

Example:
    python tools/export.py configs/con_retinanet_r50_fpn.py model.pth model.onnx
    python tools/predict_onnx.py model.onnx image.jpg

The file contains preprocessing, anchors, all box steps and the suppression; its inputs
are plain pixels. Requires the extra `export`: pip install "mmdet_consistent[export]"
"""

import argparse
import os
from pathlib import Path

import mmdet_consistent  # noqa: F401  # isort: skip  # operators before mmdet
from mmdet.apis import init_detector
from mmengine.config import Config, DictAction

from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.launch import friendly_errors, tested_dataset
from mmdet_consistent.export import export_onnx
from mmdet_consistent.utils.errors import ConfigError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', help='the .onnx file to write')
    parser.add_argument(
        '--no-nms',
        action='store_true',
        help='return every box and score, without threshold and suppression',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='key=value overrides'
    )
    args = parser.parse_args()
    for path in (args.config, args.checkpoint):
        if not os.path.isfile(path):
            parser.error(f'file not found: {path}')
    if not args.out.endswith('.onnx'):
        parser.error(f'the file to write must end in .onnx, got {args.out}')
    return args


def test_resize(cfg: Config) -> dict:
    """Return ``scale`` (width, height) and ``keep_ratio`` of the test pipeline.

    Raises:
        ConfigError: If no step resizes the image.
    """
    for step in tested_dataset(cfg).pipeline:
        if getattr(step['type'], '__name__', step['type']) == 'Resize':
            return dict(
                scale=list(step['scale']), keep_ratio=step.get('keep_ratio', False)
            )
    raise ConfigError(
        "test_dataloader.dataset.pipeline has no step of type='Resize' with a scale, "
        'which the exported file stores: add one'
    )


def main() -> None:
    args = parse_args()
    make_safe()
    with friendly_errors():
        cfg = Config.fromfile(args.config)
        if args.cfg_options:
            cfg.merge_from_dict(args.cfg_options)
        detector = init_detector(cfg, args.checkpoint, palette='random', device='cpu')
        export_onnx(
            detector,
            args.out,
            nms=not args.no_nms,
            resize=test_resize(cfg),
            classes=detector.dataset_meta['classes'],
        )
    print(f'{args.out}: {Path(args.out).stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
