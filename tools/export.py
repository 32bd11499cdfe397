"""Write a trained detector to one ONNX file, for any batch and image size.

Example:
    python tools/export.py configs/con_retinanet_r50_fpn.py model.pth model.onnx
    python tools/predict_onnx.py model.onnx image.jpg
    python tools/export.py CONFIG CHECKPOINT int8.onnx --int8 64

The file contains preprocessing, anchors, all box steps and the suppression; its inputs
are plain pixels. Requires the extra `export`: pip install "mmdet_consistent[export]"
"""

import argparse
from pathlib import Path

from mmengine.config import DictAction

from mmdet_consistent.analysis.detector import build_model
from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.checkpoint import is_there
from mmdet_consistent.engine.launch import friendly_errors, load_config
from mmdet_consistent.export import export_onnx
from mmdet_consistent.export.from_config import (
    class_names,
    image_channels,
    test_resize,
)
from mmdet_consistent.export.int8 import calibration_images, quantize


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint: a file or an address')
    parser.add_argument('out', help='the .onnx file to write')
    parser.add_argument(
        '--no-nms',
        action='store_true',
        help='return every box and score, without threshold and suppression',
    )
    parser.add_argument(
        '--int8',
        type=int,
        metavar='N',
        help='compute the convolutions in INT8, calibrated on N training images',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='key=value overrides'
    )
    args = parser.parse_args()
    if not is_there(args.checkpoint):
        parser.error(f'checkpoint not found: {args.checkpoint}')
    if not args.out.endswith('.onnx'):
        parser.error(f'the file to write must end in .onnx, got {args.out}')
    if args.int8 is not None and args.int8 < 1:
        parser.error(f'--int8 needs at least one image, got {args.int8}')
    return args


def main() -> None:
    args = parse_args()
    make_safe()
    with friendly_errors():
        cfg = load_config(args.config, args.cfg_options)
        resize, channels = test_resize(cfg), image_channels(cfg)
        detector = build_model(cfg, args.checkpoint, 'cpu')
        classes = detector.dataset_meta['classes']
        if hasattr(detector, 'bbox_head'):
            classes = class_names(cfg, classes, detector.bbox_head.num_classes)
        nms = not args.no_nms
        export_onnx(detector, args.out, nms, resize, classes, channels)
        if args.int8:
            quantize(args.out, args.out, calibration_images(cfg, args.int8))
    print(f'{args.out}: {Path(args.out).stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
