"""mmdet's own tools and interfaces, with our configs and checkpoints."""

import json
import re
import runpy
import shutil
from pathlib import Path

import cv2
import mmcv
import mmdet
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.apis import DetInferencer, inference_detector, init_detector

import mmdet_consistent  # noqa: F401
from tests.support.processes import ROOT, run_tool
from tests.support.recipes import recipe_with

EXAMPLE = ROOT / 'examples/downstream'
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim/tools'
CONFIG = 'configs/shapes_text.py'

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The example project, after a training of two steps."""
    project = tmp_path_factory.mktemp('users') / 'project'
    shutil.copytree(
        EXAMPLE, project, ignore=shutil.ignore_patterns('data', 'work_dirs')
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        run_tool('make_data.py', 'data', '--images', '16')
        epochs = ('train_cfg.max_epochs=1', 'train_cfg.val_interval=2')
        always = ('default_hooks.logger.interval=1', 'model.test_cfg.score_thr=0.0')
        run_tool(ROOT / 'tools/train.py', CONFIG, '--cfg-options', *epochs, *always)
    return project


@pytest.fixture
def project(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


@pytest.fixture
def detector(project):
    # The config that the training wrote beside its checkpoint. (One detector a test:
    # mmdet's inference changes the pipeline of the one that it is given.)
    return init_detector(
        'work_dirs/shapes_text/shapes_text.py', checkpoint(), device='cpu'
    )


def checkpoint():
    return 'work_dirs/shapes_text/epoch_1.pth'


def share_found_in(found, expected, pixels=0.1, score=1e-4):
    """Share of the expected detections that are among the found ones.

    The detector is barely trained, so its scores are nearly tied: rounding, which
    differs between processors, may change their order, and which boxes suppress which.
    """
    boxes, others = (np.asarray(x['bboxes']) for x in (expected, found))
    scores, other_scores = (np.asarray(x['scores']) for x in (expected, found))
    near = np.abs(boxes[:, None] - others).max(axis=2) < pixels
    return (near & (np.abs(scores[:, None] - other_scores) < score)).any(axis=1).mean()


@pytest.mark.works_with(
    "MMDetection's `inference_detector`",
    'detect in files and frames',
    'getting_started.md#inference',
)
def test_inference_detector_takes_paths_and_frames(project, detector):
    by_path = inference_detector(detector, 'data/val/000.png').pred_instances
    frames = [cv2.imread(str(p)) for p in sorted(Path('data/val').glob('*.png'))[:2]]
    by_frame = [r.pred_instances for r in inference_detector(detector, frames)]
    assert len(by_path) > 0
    assert torch.equal(by_path.bboxes, by_frame[0].bboxes)
    assert torch.equal(by_path.scores, by_frame[0].scores)
    assert not torch.equal(by_path.bboxes, by_frame[1].bboxes)
    assert detector.dataset_meta['classes'] == ('disc', 'square')


@pytest.mark.works_with(
    "MMDetection's `DetInferencer`",
    'detect in images and folders',
    'getting_started.md#inference',
)
def test_det_inferencer_equals_inference_detector(project, detector):
    inferencer = DetInferencer(
        'work_dirs/shapes_text/shapes_text.py',
        checkpoint(),
        device='cpu',
        palette='random',
        show_progress=False,
    )
    on_image = inferencer('data/val/001.png')['predictions'][0]
    on_folder = inferencer('data/val', batch_size=2, out_dir='drawn')['predictions']
    expected = inference_detector(detector, 'data/val/001.png').pred_instances
    assert len(on_image['scores']) == len(expected) > 0
    assert share_found_in(on_image, expected) > 0.8
    assert len(on_folder) == len(list(Path('data/val').glob('*.png')))
    assert len(list(Path('drawn/vis').glob('*.png'))) == len(on_folder)


@pytest.fixture
def frames(project):
    """Return the 9 frames of the video ``in.mp4``, read back from its file."""
    paths = [f'data/train/{i:03d}.png' for i in range(9)]
    images = [cv2.imread(path) for path in paths]
    height, width = images[0].shape[:2]
    mp4v = cv2.VideoWriter_fourcc(*'mp4v')
    writer = cv2.VideoWriter('in.mp4', mp4v, 10, (width, height))
    for image in images:
        writer.write(image)
    writer.release()
    return list(mmcv.VideoReader('in.mp4'))


@pytest.mark.works_with(
    "mmcv's `VideoReader`",
    'detect in videos and draw the boxes',
    'recipes.md#video',
)
def test_video_recipe_draws_and_detects_as_frame_by_frame(project, detector, frames):
    recipe = recipe_with('VideoReader')
    for given, here in (
        ('mine.py', 'work_dirs/shapes_text/shapes_text.py'),
        ('mine.pth', checkpoint()),
        ('64', '4'),  # so that there are several parts, and a rest
        ('8', '2'),
    ):
        assert given in recipe
        recipe = recipe.replace(given, here)
    names = {}
    exec(recipe, names)
    drawn = list(mmcv.VideoReader('out.mp4'))
    assert len(frames) == len(drawn) == 9
    for frame, copy in zip(frames, drawn):  # red stays red
        same, swapped = (
            np.abs(copy - image.astype(float)).mean()
            for image in (frame, frame[..., ::-1])
        )
        assert same < 5 < swapped
    assert len(names['found']['predictions']) == 1, 'the rest: the ninth frame'

    # In batches, and one by one as mmdet's video_demo does: the same.
    in_batches = names['inferencer'](frames, batch_size=2)['predictions']
    detector.cfg.test_dataloader.dataset.pipeline[0].type = 'mmdet.LoadImageFromNDArray'
    pipeline = Compose(detector.cfg.test_dataloader.dataset.pipeline)
    for number, frame in enumerate(frames):
        result = inference_detector(detector, frame, test_pipeline=pipeline)
        expected = result.pred_instances
        found = in_batches[number]
        assert len(found['scores']) == len(expected) > 0
        assert share_found_in(found, expected) > 0.8
        neighbour = in_batches[number - 1]
        assert share_found_in(neighbour, expected) < 0.2
    assert names['found']['predictions'][0]['bboxes'] == in_batches[8]['bboxes']


def test_exported_file_predicts_without_pytorch(project, detector):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    run_tool(
        ROOT / 'tools/export.py',
        'work_dirs/shapes_text/shapes_text.py',
        checkpoint(),
        'model.onnx',
    )
    text = (ROOT / 'tools/predict_onnx.py').read_text()
    needed = set(re.findall(r'^(?:import|from) (\w+)', text, re.MULTILINE))
    standard = {'argparse', 'json', 'pathlib', 'typing'}
    assert needed - standard == {'cv2', 'numpy', 'onnxruntime'}

    tool = runpy.run_path(str(ROOT / 'tools/predict_onnx.py'))
    paths = ['data/val/000.png', 'data/val/002.png']
    images = [cv2.imread(path) for path in paths]
    images[1] = images[1][:60, :80]  # another shape in the same batch
    found = tool['predict'](onnxruntime.InferenceSession('model.onnx'), images)
    for image, (boxes, scores, labels) in zip(images, found):
        expected = inference_detector(detector, image).pred_instances
        assert len(boxes) == len(expected) > 0
        np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
        assert share_found_in(dict(bboxes=boxes, scores=scores), expected) > 0.9
        assert set(labels.tolist()) <= {0, 1}


@pytest.mark.works_with(
    "MMDetection's test-time augmentation",
    'evaluate with flipped images: `test --tta`',
    'tools.md',
)
def test_tta_tests_a_detector_of_a_small_project(project, capsys):
    run_tool(
        ROOT / 'tools/test.py',
        'work_dirs/shapes_text/shapes_text.py',
        checkpoint(),
        '--tta',
        '--out',
        'tta.pkl',
        '--work-dir',  # its config is written there: not over the trained one
        'work_dirs/tta',
    )
    from mmengine.fileio import load

    results = load('tta.pkl')
    assert len(results) == len(list(Path('data/val').glob('*.png')))
    assert all(len(result['pred_instances']['scores']) for result in results)


@pytest.mark.works_with(
    "MMDetection's `browse_dataset.py`",
    'draw the training images',
    'tools.md',
)
def test_browse_dataset_draws_the_training_images(project):
    tool = MMDET_TOOLS / 'analysis_tools/browse_dataset.py'
    run_tool(tool, CONFIG, '--output-dir', 'browsed', '--not-show')
    assert len(list(Path('browsed').rglob('*.png'))) == 16


@pytest.mark.works_with(
    "MMDetection's `analyze_logs.py`",
    'plot the losses of all stages',
    'tools.md',
)
def test_analyze_logs_plots_the_losses_of_later_stages(project, capsys):
    pytest.importorskip('seaborn')  # (mmdet's tool wants it, mmdet doesn't)
    (log,) = Path('work_dirs/shapes_text').glob('*/vis_data/scalars.json')
    tool = MMDET_TOOLS / 'analysis_tools/analyze_logs.py'
    keys = ('loss_cls', 'loss_bbox_s1', 'num_pos_s1')
    run_tool(tool, 'plot_curve', log, '--keys', *keys, '--out', 'curve.png')
    assert Path('curve.png').stat().st_size > 1000
    run_tool(tool, 'cal_train_time', log)
    assert 'average iter time' in capsys.readouterr().out


@pytest.mark.works_with(
    "MMDetection's `get_flops.py`",
    'count operations and parameters',
    'tools.md',
)
def test_get_flops_counts_flops_and_parameters(project, capsys):
    tool = MMDET_TOOLS / 'analysis_tools/get_flops.py'
    run_tool(tool, CONFIG, '--num-images', '1')
    text = capsys.readouterr().out
    assert re.search(r'Flops: [\d.]+ ?[MG]', text), text
    params = float(re.search(r'Params: ([\d.]+) ?M', text)[1])
    assert 0.5 < params < 1.5


def test_compare_writes_a_table_and_refuses_different_test_data(project, capsys):
    config = 'work_dirs/shapes_text/shapes_text.py'
    pairs = (config, checkpoint(), config, checkpoint())
    options = ('--names', 'a', 'b', '--out', 'compared.md', '--repetitions', '5')
    run_tool(ROOT / 'tools/compare.py', *pairs, *options)
    lines = Path('compared.md').read_text().splitlines()
    header, _, first, second = (
        [cell.strip() for cell in line.strip('|').split('|')] for line in lines[:4]
    )
    assert header[1] == 'AP'
    assert header[-2:] == ['ms/image', 'million parameters']
    assert first[0] == 'a'
    assert second[0] == 'b'
    assert first[1:-2] == second[1:-2]
    assert first[-1] == second[-1]
    assert float(first[-2]) > 0
    other = json.loads(Path('data/val.json').read_text())
    Path('data/other.json').write_text(json.dumps(other))
    text = Path(config).read_text()
    Path('other.py').write_text(text.replace('val.json', 'other.json'))
    with pytest.raises(SystemExit, match='tested on different data'):
        run_tool(
            ROOT / 'tools/compare.py', config, checkpoint(), 'other.py', checkpoint()
        )
