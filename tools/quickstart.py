"""Train RetinaNet and ConRetinaNet on blood cells, and put them side by side.

Example:
    python tools/quickstart.py
    python tools/quickstart.py --smoke
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path

import cv2
import torch
from mmengine.config import Config
from mmengine.runner import Runner

import mmdet_consistent
from mmdet_consistent.engine import make_safe
from mmdet_consistent.engine.hooks import ProgressHook
from mmdet_consistent.utils import atomic
from mmdet_consistent.utils.tables import draw_side_by_side, markdown_table

ROOT = Path(__file__).resolve().parents[1]
MODELS = {
    'RetinaNet': 'configs/quickstart/retinanet_bccd.py',
    'ConRetinaNet': 'configs/quickstart/con_retinanet_bccd.py',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--smoke', action='store_true', help='one minute, no meaning')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/quickstart'))
    parser.add_argument('--restart', action='store_true', help='forget earlier runs')
    parser.add_argument('--write-docs', action='store_true', help='update docs/results')
    return parser.parse_args()


def quick_config(path: str, args: argparse.Namespace, work_dir: Path) -> Config:
    """The model's config, quiet, for a full or a smoke run."""
    cfg = Config.fromfile(ROOT / path)
    cfg.work_dir = str(work_dir)
    cfg.log_level = 'ERROR'
    cfg.randomness.seed = args.seed
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    cfg.resume = not args.restart
    if args.smoke:
        cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
        cfg.train_dataloader.batch_size = 2
        cfg.train_dataloader.dataset.indices = 8
        cfg.test_dataloader.dataset.indices = 8
    # The test split is evaluated once, after training; val is for tuning.
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return cfg


def run_model(name: str, runs_left: int, args: argparse.Namespace) -> dict:
    """Train (or go on), evaluate on the test split, and return the figures."""
    work_dir = args.work_dir / name.lower()
    result_file = (
        work_dir / f'result_seed{args.seed}{"_smoke" if args.smoke else ""}.json'
    )
    if result_file.is_file() and not args.restart:
        print(f'{name}: done before, see {result_file} (--restart to train again)')
        return json.loads(result_file.read_text())
    cfg = quick_config(MODELS[name], args, work_dir)
    progress = ProgressHook(name, runs_left, stream=sys.stdout)
    with contextlib.redirect_stdout(args.log):
        runner = Runner.from_cfg(cfg)
        runner.register_hook(progress, priority='LOW')
        runner.train()
    print(f'{name}: evaluating on the test images', flush=True)
    start = time.perf_counter()
    with contextlib.redirect_stdout(args.log):
        metrics = runner.test()
    steps_an_epoch = len(runner.train_dataloader)
    result = dict(
        metrics={key: float(value) for key, value in metrics.items()},
        num_pos={
            key: statistics.mean(values[-steps_an_epoch:])
            / cfg.train_dataloader.batch_size
            for key, values in progress.num_pos.items()
        },
        step_seconds=statistics.median(progress.step_seconds[2:] or [float('nan')]),
        test_seconds=time.perf_counter() - start,
        checkpoint=str(work_dir / f'epoch_{runner.max_epochs}.pth'),
        detections=detect(runner, 3),
    )
    atomic.write(result_file, json.dumps(result).encode())
    return result


def detect(runner: Runner, count: int, score_thr: float = 0.4) -> list:
    """Boxes of the first test images: (xyxy, label, score), original pixels."""
    dataset = runner.test_dataloader.dataset
    runner.model.eval()
    found = []
    for index in range(count):
        item = dataset[index]
        data = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
        with torch.no_grad():
            instances = runner.model.test_step(data)[0].pred_instances
        instances = instances[instances.scores >= score_thr]
        found.append(
            list(
                zip(
                    instances.bboxes.tolist(),
                    instances.labels.tolist(),
                    instances.scores.tolist(),
                )
            )
        )
    return found


def draw(results: dict, path: Path) -> None:
    """Ground truth and both models' detections of the first test images."""
    cfg = Config.fromfile(ROOT / MODELS['RetinaNet'])
    data_root = ROOT / cfg.data_root
    coco = json.loads((data_root / 'annotations/test.json').read_text())
    count = len(next(iter(results.values()))['detections'])
    images, truths = [], []
    for info in coco['images'][:count]:
        image = cv2.imread(str(data_root / 'images' / info['file_name']))
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        boxes = [a for a in coco['annotations'] if a['image_id'] == info['id']]
        truths.append(
            [
                ((x, y, x + w, y + h), a['category_id'] - 1, None)
                for a in boxes
                for x, y, w, h in [a['bbox']]
            ]
        )
    columns = {'ground truth': truths}
    columns.update({name: r['detections'] for name, r in results.items()})
    draw_side_by_side(images, columns, cfg.classes, path)


def time_alternately(args: argparse.Namespace, steps: int) -> float:
    """Median ratio of the training step's time, ConRetinaNet / RetinaNet."""
    runners, batches = [], []
    for name, path in MODELS.items():
        cfg = quick_config(path, args, args.work_dir / 'timing' / name.lower())
        cfg.resume = False
        runner = Runner.from_cfg(cfg)
        runner._train_loop = runner.build_train_loop(cfg.train_cfg)
        runner.optim_wrapper = runner.build_optim_wrapper(cfg.optim_wrapper)
        runner.model.train()
        runners.append(runner)
        batches.append(next(iter(runner.train_dataloader)))
    ratios = []
    for step in range(steps + 2):
        seconds = []
        for runner, batch in zip(runners, batches):
            start = time.perf_counter()
            runner.model.train_step(batch, runner.optim_wrapper)
            seconds.append(time.perf_counter() - start)
        if step >= 2:
            ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios)


def table(results: dict) -> str:
    """The side-by-side table."""
    header = [
        '',
        'AP',
        'AP50',
        'AP75',
        'AP90',
        'positives an image, by stage',
        's/step',
    ]
    rows = []
    for name, result in results.items():
        metrics = result['metrics']
        keys = (
            'coco/bbox_mAP',
            'coco/bbox_mAP_50',
            'coco/bbox_mAP_75',
            'coco90/bbox_mAP',
        )
        positives = ', '.join(f'{v:.0f}' for v in result['num_pos'].values()) or '–'
        # mmdet leaves the figures out where there is no detection at all.
        aps = [f'{100 * metrics.get(key, 0.0):.1f}' for key in keys]
        rows.append([name, *aps, positives, f'{result["step_seconds"]:.2f}'])
    return markdown_table(header, rows)


def write_docs(text: str, note: str, picture: Path) -> None:
    """Put table and picture into docs/results and docs/figures."""
    (ROOT / 'docs/results').mkdir(parents=True, exist_ok=True)
    (ROOT / 'docs/figures').mkdir(parents=True, exist_ok=True)
    (ROOT / 'docs/figures/quickstart.png').write_bytes(picture.read_bytes())
    (ROOT / 'docs/results/quickstart.md').write_text(
        '# Quickstart: BCCD test split\n\n'
        'Made by `tools/quickstart.sh --write-docs`.\n\n'
        f'{text}\n\n{note}\n\n![detections](../figures/quickstart.png)\n'
    )


def main() -> None:
    args = parse_args()
    make_safe()
    # A first run should show its progress, not the stack's deprecations.
    warnings.filterwarnings('ignore')
    os.chdir(ROOT)
    if args.smoke and args.work_dir == Path('work_dirs/quickstart'):
        args.work_dir = Path('work_dirs/quickstart_smoke')
    args.work_dir.mkdir(parents=True, exist_ok=True)
    # The libraries' own words go to a file, which stays open to the end: their
    # loggers keep it.
    args.log = open(args.work_dir / 'output.txt', 'a', buffering=1)  # noqa: SIM115
    names = list(MODELS)
    try:
        results = {
            name: run_model(name, len(names) - 1 - i, args)
            for i, name in enumerate(names)
        }
    except KeyboardInterrupt:
        print('\nStopped. The same command goes on from the last finished epoch.')
        sys.exit(130)
    print('timing a few steps of both, in turn', flush=True)
    with contextlib.redirect_stdout(args.log):
        ratio = time_alternately(args, 3 if args.smoke else 10)
    picture = args.work_dir / 'detections.png'
    draw(results, picture)
    text = table(results)
    note = (
        f'One seed ({args.seed}), so a difference of a point may be chance. A step of '
        f'ConRetinaNet takes {ratio:.2f} times one of RetinaNet (median of steps '
        'taken in turn; s/step above is from runs one after the other). '
        f'{os.cpu_count()} CPU cores, Python {platform.python_version()}, torch '
        f'{torch.__version__}, mmdet_consistent {mmdet_consistent.__version__}.'
    )
    print(f'\n{text}\n\n{note}\n\npicture: {picture}')
    if args.write_docs and not args.smoke:
        write_docs(text, note, picture)
    print('\nNext, on COCO with 4 GPUs:')
    print('  tools/dist_train.sh configs/con_retinanet_r101_fpn.py 4')


if __name__ == '__main__':
    main()
