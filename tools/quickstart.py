"""Train RetinaNet and ConRetinaNet on blood cells and compare them.

Example:
    python tools/quickstart.py
    python tools/quickstart.py --smoke
"""

import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import cv2
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmdet_consistent
from mmdet_consistent.engine import make_safe
from mmdet_consistent.utils import atomic, timing
from mmdet_consistent.utils.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
MODELS = {
    'RetinaNet': 'configs/quickstart/retinanet_bccd.py',
    'ConRetinaNet': 'configs/quickstart/con_retinanet_bccd.py',
}
# Okabe and Ito's colours: told apart with any colour vision.
PALETTE = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00']


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--smoke', action='store_true', help='one minute, results mean nothing'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/quickstart'))
    parser.add_argument('--restart', action='store_true', help='discard earlier runs')
    parser.add_argument('--write-docs', action='store_true', help='update docs/results')
    return parser.parse_args()


class ProgressHook(Hook):
    """Prints progress, and records what the table shows.

    A terminal has one line, which is rewritten every second; a log has one per epoch.

    Attributes:
        step_seconds: Duration of each training step.
        num_pos: Name of a stage's positives to their number in each step.
    """

    def __init__(self, name: str, runs_left: int) -> None:
        self.name = name
        self.runs_left = runs_left
        self.stream = sys.stdout  # before it is redirected
        self.step_seconds: list[float] = []
        self.num_pos: dict[str, list[float]] = {}
        self.printed = 0.0
        self.timed_from = 0.0

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Start the clock of a step."""
        self.start = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: dict
    ) -> None:
        """Record a step, and print progress if it is time."""
        now = time.perf_counter()
        self.step_seconds.append(now - self.start)
        positives = {k: v for k, v in outputs.items() if k.startswith('num_pos')}
        if not positives:  # mmdet's own head: those of its last assignment
            infos = runner.model.bbox_head._raw_positive_infos
            sampled = infos.get('sampling_results', ())
            positives['num_pos'] = sum(len(result.pos_inds) for result in sampled)
        for name, value in positives.items():
            self.num_pos.setdefault(name, []).append(float(value))
        done, total = runner.iter + 1, runner.max_iters
        left = self.seconds_left(now, total - done + self.runs_left * total)
        ends_epoch = batch_idx + 1 == len(runner.train_dataloader)
        terminal = self.stream.isatty()
        if not ends_epoch and not (terminal and now - self.printed >= 1):
            return
        self.printed = now
        line = (
            f'{self.name}: epoch {runner.epoch + 1}/{runner.max_epochs}, '
            f'{100 * done // total} %, loss {float(outputs["loss"]):.3f}'
        )
        if left is not None:
            line += f', about {left // 60:.0f} min {left % 60:02.0f} s left'
        start, end = ('\r', '' if done < total else '\n') if terminal else ('', '\n')
        print(
            start + (line.ljust(79) if terminal else line),
            end=end,
            file=self.stream,
            flush=True,
        )

    def seconds_left(self, now: float, steps: int) -> Optional[float]:
        """Estimate the time that steps will take; none before the pace is steady.

        The pace is the mean since the tenth step, pauses included: the first steps are
        slow, and a mean over a few steps jumps.
        """
        timed = len(self.step_seconds) - 10
        if timed <= 0:
            self.timed_from = now
        return (now - self.timed_from) / timed * steps if timed >= 20 else None


def quick_config(path: str, args: argparse.Namespace, work_dir: Path) -> Config:
    """Return the model's config for a full or a smoke run, with little output."""
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
    """Train (or resume), evaluate on the test split, and return the figures."""
    work_dir = args.work_dir / name.lower()
    result_file = (
        work_dir / f'result_seed{args.seed}{"_smoke" if args.smoke else ""}.json'
    )
    if result_file.is_file() and not args.restart:
        print(f'{name}: done before, see {result_file} (--restart to train again)')
        return json.loads(result_file.read_text())
    cfg = quick_config(MODELS[name], args, work_dir)
    progress = ProgressHook(name, runs_left)
    with contextlib.redirect_stdout(args.log):
        runner = Runner.from_cfg(cfg)
        runner.register_hook(progress, priority='LOW')
        runner.train()
    print(f'{name}: evaluating on the test images', flush=True)
    with contextlib.redirect_stdout(args.log):
        metrics = runner.test()
    steps_per_epoch = len(runner.train_dataloader)
    result = dict(
        metrics={key: float(value) for key, value in metrics.items()},
        num_pos={
            key: statistics.mean(values[-steps_per_epoch:])
            / cfg.train_dataloader.batch_size
            for key, values in progress.num_pos.items()
        },
        step_seconds=statistics.median(progress.step_seconds[2:] or [float('nan')]),
        detections=detect(runner, 3),
    )
    atomic.write(result_file, json.dumps(result).encode())
    return result


def detect(runner: Runner, count: int, score_thr: float = 0.4) -> list:
    """Return the first test images' boxes: (xyxy in pixels, label, score)."""
    dataset = runner.test_dataloader.dataset
    runner.model.eval()
    found = []
    for index in range(count):
        item = dataset[index]
        data = dict(inputs=[item['inputs']], data_samples=[item['data_samples']])
        with torch.no_grad():
            instances = runner.model.test_step(data)[0].pred_instances
        kept = instances[instances.scores >= score_thr]
        columns = (kept.bboxes.tolist(), kept.labels.tolist(), kept.scores.tolist())
        found.append(list(zip(*columns)))
    return found


def draw(results: dict, path: Path) -> None:
    """Draw ground truth and both models' detections, one row per image."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    cfg = Config.fromfile(ROOT / MODELS['RetinaNet'])
    data_root = ROOT / cfg.data_root
    coco = json.loads((data_root / 'annotations/test.json').read_text())
    infos = coco['images'][: len(next(iter(results.values()))['detections'])]
    truths = [
        [
            ((x, y, x + width, y + height), annotation['category_id'] - 1, None)
            for annotation in coco['annotations']
            if annotation['image_id'] == info['id']
            for x, y, width, height in [annotation['bbox']]
        ]
        for info in infos
    ]
    columns = {'ground truth': truths}
    columns.update({name: r['detections'] for name, r in results.items()})
    figure, axes = plt.subplots(
        len(infos),
        len(columns),
        figsize=(4.2 * len(columns), 3.2 * len(infos) + 0.7),
        squeeze=False,
        layout='constrained',
    )
    for row, info in enumerate(infos):
        image = cv2.imread(str(data_root / 'images' / info['file_name']))
        for axis, (title, boxes) in zip(axes[row], columns.items()):
            axis.imshow(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            axis.set(xticks=[], yticks=[], title=title if row == 0 else '')
            draw_boxes(axis, boxes[row])
    handles = [
        Patch(fc='none', ec=PALETTE[i % len(PALETTE)], label=name)
        for i, name in enumerate(cfg.classes)
    ]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(handles))
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_boxes(axis: Any, boxes: list) -> None:
    """Draw (xyxy in pixels, label, score) triples; ground truth has no score."""
    from matplotlib.patches import Rectangle

    for (x1, y1, x2, y2), label, score in boxes:
        colour = PALETTE[label % len(PALETTE)]
        outline = dict(fill=False, ec=colour, lw=1.6)
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **outline))
        if score is not None:
            background = dict(fc=colour, ec='none', pad=0.6)
            style = dict(fontsize=6, color='white', va='top', bbox=background)
            axis.text(x1 + 1, y1 + 1, f'{score:.2f}', **style)


def time_alternately(args: argparse.Namespace, steps: int) -> float:
    """Return the median ratio of the training step's time, ConRetinaNet / RetinaNet."""

    def training_step(path: str, work_dir: Path) -> Callable[[timing.Clock], dict]:
        cfg = quick_config(path, args, work_dir)
        cfg.resume = False
        runner = Runner.from_cfg(cfg)
        optimizer = runner.build_optim_wrapper(cfg.optim_wrapper)
        batch = next(iter(runner.build_dataloader(cfg.train_dataloader)))
        runner.model.train()

        def step(clock: timing.Clock) -> dict:
            start = clock()
            runner.model.train_step(batch, optimizer)
            return dict(step=clock() - start)

        return step

    works = {
        name: training_step(path, args.work_dir / 'timing' / name.lower())
        for name, path in MODELS.items()
    }
    options = dict(warmup=2, repetitions=steps, seconds=math.inf)
    samples = timing.alternate(works, time.perf_counter, **options)
    base, ours = (samples[name]['step'] for name in MODELS)
    return statistics.median(timing.ratios(ours, base))


def table(results: dict) -> str:
    """Render the table that compares both models."""
    header = ['', 'AP', 'AP50', 'AP75', 'AP90', 'positives per image, by stage']
    header.append('s/step')
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
        # mmdet leaves the figures out if there is no detection at all.
        aps = [f'{100 * metrics.get(key, 0.0):.1f}' for key in keys]
        rows.append([name, *aps, positives, f'{result["step_seconds"]:.2f}'])
    return markdown_table(header, rows)


def write_docs(text: str, note: str, picture: Path) -> None:
    """Write table and picture to docs/results and docs/figures."""
    (ROOT / 'docs/results').mkdir(parents=True, exist_ok=True)
    (ROOT / 'docs/figures').mkdir(parents=True, exist_ok=True)
    (ROOT / 'docs/figures/quickstart.png').write_bytes(picture.read_bytes())
    (ROOT / 'docs/results/quickstart.md').write_text(
        '# Quickstart: BCCD test split\n\n'
        'Generated by `tools/quickstart.sh --write-docs`.\n\n'
        f'{text}\n\n{note}\n\n![detections](../figures/quickstart.png)\n'
    )


def main() -> None:
    args = parse_args()
    make_safe()
    # A first run should show progress, not the libraries' deprecations.
    warnings.filterwarnings('ignore')
    os.chdir(ROOT)
    if args.smoke and args.work_dir == Path('work_dirs/quickstart'):
        args.work_dir = Path('work_dirs/quickstart_smoke')
    args.work_dir.mkdir(parents=True, exist_ok=True)
    # The libraries' output goes to a file, which stays open for their loggers.
    args.log = open(args.work_dir / 'output.txt', 'a', buffering=1)  # noqa: SIM115
    names = list(MODELS)
    try:
        results = {
            name: run_model(name, len(names) - 1 - i, args)
            for i, name in enumerate(names)
        }
    except KeyboardInterrupt:
        print('\nStopped. The same command resumes from the last finished epoch.')
        sys.exit(130)
    print('timing a few steps of both alternately', flush=True)
    with contextlib.redirect_stdout(args.log):
        ratio = time_alternately(args, 3 if args.smoke else 10)
    picture = args.work_dir / 'detections.png'
    draw(results, picture)
    text = table(results)
    note = (
        f'With one seed ({args.seed}), a difference of a point may be chance. A step '
        f'of ConRetinaNet takes {ratio:.2f} times as long as one of RetinaNet (median '
        'of alternating steps; s/step in the table is from consecutive runs). '
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
