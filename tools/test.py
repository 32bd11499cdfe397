"""Evaluate a checkpoint.

Example:
    python tools/test.py configs/con_retinanet_r50_fpn.py model.pth --out dets.pkl
"""

import argparse
import os

import mmdet_consistent  # noqa: F401  # isort: skip  # operators before mmdet
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import ConfigDict, DictAction
from mmengine.runner import Runner

from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.launch import (
    add_hooks,
    friendly_errors,
    load_config,
    tested_dataset,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
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
    if not os.path.isfile(args.checkpoint):
        parser.error(f'checkpoint not found: {args.checkpoint}')
    return args


def use_tta(cfg: ConfigDict) -> None:
    """Wrap the model for test-time augmentation: that of the config, or a flip."""
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(
            type='DetTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        )
    dataset = tested_dataset(cfg)
    if 'tta_pipeline' not in cfg:
        *steps, pack = dataset.pipeline
        meta_keys = (
            *pack.get('meta_keys', ('img_id', 'img_path', 'ori_shape')),
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        )
        pack = dict(pack, meta_keys=tuple(dict.fromkeys(meta_keys)))
        flips = [dict(type='RandomFlip', prob=p) for p in (1.0, 0.0)]
        loads = [s for s in steps if s['type'] == 'LoadImageFromFile']
        others = [s for s in steps if s['type'] != 'LoadImageFromFile']
        cfg.tta_pipeline = [
            *loads,
            dict(
                type='TestTimeAug',
                transforms=[[step] for step in others] + [flips, [pack]],
            ),
        ]
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def test() -> None:
    args = parse_args()
    make_safe()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    setup_cache_size_limit_of_dynamo()
    cfg = load_config(args.config, args.cfg_options, args.launcher, args.work_dir)
    cfg.load_from = args.checkpoint
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
