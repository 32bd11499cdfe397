"""Train a detector.

Example:
    python tools/train.py configs/con_retinanet_r50_fpn.py --amp

Interrupted training, however it was stopped, resumes bit for bit with --resume. See
docs/reliability.md.
"""

import argparse
import os

import torch
from mmengine.config import DictAction
from mmengine.runner import Runner

from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.launch import (
    add_safeguards,
    count_accumulation,
    friendly_errors,
    load_config,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the lr with the batch size'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a name, from the last good one',
    )
    parser.add_argument(
        '--bad-data',
        choices=['drop', 'refuse', 'keep'],
        default='drop',
        help='bad images and objects: name and leave out, stop, or do not check',
    )
    parser.add_argument(
        '--check-images',
        choices=['no', 'quick', 'full'],
        default='no',
        help='check image files before training: both ends only, or decode them',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='key=value overrides'
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser.parse_args()


def train() -> None:
    args = parse_args()
    make_safe()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options, args.launcher, args.work_dir)
    if args.amp:
        if not torch.cuda.is_available():
            raise SystemExit(
                '--amp: mmengine has mixed precision on GPUs only, and this machine '
                'has none; leave --amp out'
            )
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise SystemExit(
                f'{args.config}: --auto-scale-lr needs auto_scale_lr='
                'dict(base_batch_size=...) in the config'
            )
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    add_safeguards(cfg, args.bad_data, args.check_images)
    runner = Runner.from_cfg(cfg)
    count_accumulation(runner)
    runner.train()


def main() -> None:
    with friendly_errors():
        train()


if __name__ == '__main__':
    main()
