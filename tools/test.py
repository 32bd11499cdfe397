"""Evaluate a checkpoint.

Example:
    python tools/test.py configs/con_retinanet_r50_fpn.py model.pth --out dets.pkl
"""

import argparse
import os
import sys
import warnings

import mmdet_consistent  # noqa: F401  # isort: skip  # operators before mmdet
from mmcv.transforms import LoadImageFromFile
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.runner import Runner

from mmdet_consistent.datasets.check import use_checked
from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.checkpoint import is_there
from mmdet_consistent.engine.launch import (
    add_hooks,
    friendly_errors,
    load_config,
    tested_datasets,
)
from mmdet_consistent.utils.configs import transform_class
from mmdet_consistent.utils.errors import ConfigError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint: a file or an address')
    parser.add_argument('--work-dir', help='folder for logs and figures')
    parser.add_argument('--out', help='write the detections to this .pkl file')
    parser.add_argument('--show', action='store_true', help='show in a window')
    parser.add_argument('--show-dir', help='draw the detections into this folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='key=value overrides'
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end in .pkl or .pickle, got {args.out}')
    if not is_there(args.checkpoint):
        parser.error(f'checkpoint not found: {args.checkpoint}')
    return args


def use_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation: that of the config, or a flip.

    Raises:
        ConfigError: If neither ``tta_model`` nor the model says how to suppress boxes.
    """
    suppression = model_suppression(cfg.model)
    if cfg.get('tta_model') is None:
        if not suppression.get('nms'):
            raise ConfigError(
                f'{cfg.filename}: model.test_cfg has no nms, by which --tta could '
                "merge boxes: set tta_model=dict(type='DetTTAModel', tta_cfg=dict(...))"
            )
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=suppression)
    elif suppression != cfg.tta_model.get('tta_cfg'):
        warnings.warn(
            f'--tta merges boxes by tta_model.tta_cfg={cfg.tta_model.get("tta_cfg")}; '
            f'model.test_cfg has {suppression}',
            stacklevel=2,
        )
    given = cfg.get('tta_pipeline')
    for dataset in tested_datasets(cfg):
        cfg.tta_pipeline = dataset.pipeline = given or flipped(dataset.pipeline)
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def model_suppression(model: ConfigDict) -> dict:
    """Return ``nms`` and ``max_per_img`` by which a model's last head suppresses."""
    while 'detector' in model:  # semi-supervised
        model = model.detector
    cfg = model.get('test_cfg') or (model.get('bbox_head') or {}).get('test_cfg') or {}
    cfg = cfg.get('rcnn') or cfg.get('rpn') or cfg
    limit = cfg.get('max_per_img', -1)
    # mmdet cuts by [:max_per_img], so that -1 (all) would lose a box.
    return dict(nms=cfg.get('nms'), max_per_img=limit if limit > 0 else sys.maxsize)


def flipped(pipeline: list) -> list:
    """Return a test pipeline that gives each image twice, flipped and not."""
    *steps, pack = pipeline
    meta_keys = (
        *pack.get('meta_keys', ('img_id', 'img_path')),
        'ori_shape',
        'img_shape',
        'scale_factor',
        'flip',
        'flip_direction',
    )
    pack = dict(pack, meta_keys=tuple(dict.fromkeys(meta_keys)))
    flips = [dict(type='RandomFlip', prob=p) for p in (1.0, 0.0)]
    is_load = [
        issubclass(transform_class(s) or object, LoadImageFromFile) for s in steps
    ]
    loads = [step for step, load in zip(steps, is_load) if load]
    others = [[step] for step, load in zip(steps, is_load) if not load]
    return [*loads, dict(type='TestTimeAug', transforms=[*others, flips, [pack]])]


def test() -> None:
    args = parse_args()
    make_safe()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    setup_cache_size_limit_of_dynamo()
    cfg = load_config(args.config, args.cfg_options, args.launcher, args.work_dir)
    cfg.load_from = args.checkpoint
    use_checked(cfg, ['test'])
    add_hooks(cfg, 'ConfigCheckHook')
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    if args.tta:
        use_tta(cfg)
    runner = Runner.from_cfg(cfg)
    if args.out:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    runner.test()


def main() -> None:
    with friendly_errors():
        test()


if __name__ == '__main__':
    main()
