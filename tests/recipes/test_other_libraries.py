"""The recipes for SAHI, supervision and Label Studio, with the real libraries."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector

from tests.support.processes import ROOT, run_tool
from tests.support.recipes import run_recipe
from tests.support.tiny_detector import save_weights, tiny_config

CLASSES = ('RBC', 'WBC', 'Platelets')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Return a folder with a config, weights, and an image of 640 × 480 pixels."""
    folder = tmp_path_factory.mktemp('recipes')
    cfg = tiny_config()
    for metric in cfg.test_evaluator:
        metric.ann_file = str(ROOT / metric.ann_file)
    cfg.dump(folder / 'mine.py')
    weights = torch.load(save_weights(cfg, folder / 'mine.pth'), weights_only=True)
    weights['meta'] = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(weights, folder / 'mine.pth')
    image = cv2.imread(str(ROOT / 'data/bccd/images/BloodImage_00000.jpg'))
    rows = np.concatenate([image, image[:, ::-1]], axis=1)
    cv2.imwrite(str(folder / 'in.png'), np.concatenate([rows, rows[::-1]]))
    return folder


@pytest.fixture
def project(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


@pytest.mark.works_with(
    'SAHI', 'detect in slices of large images', 'recipes.md#large-images-in-slices'
)
def test_sahi_recipe_finds_in_each_slice_what_mmdet_finds_there(project):
    pytest.importorskip('sahi', reason='tools/setup.sh installs it')
    small = {'=640': '=320', 'large.png': 'in.png', 'cuda:0': 'cpu'}
    names = run_recipe('get_sliced_prediction', {**small, '=0.3': '=0.6'})
    found = names['found'].object_prediction_list
    assert {p.category.name for p in found} <= set(CLASSES)

    detector = init_detector('mine.py', 'mine.pth', device='cpu')
    detector.cfg.test_dataloader.dataset.pipeline[1].scale = (320, 320)
    image = cv2.imread('in.png')
    # SAHI adds the whole image to the slices.
    crops = [(x, y, 320) for x in (0, 256, 320) for y in (0, 160)] + [(0, 0, 640)]
    expected = []
    for x, y, side in crops:
        crop = image[y : y + side, x : x + side]
        boxes = inference_detector(detector, crop).pred_instances
        corner = boxes.bboxes.new_tensor([x, y, x, y])
        columns = (boxes.bboxes + corner, boxes.scores[:, None])
        expected.append(torch.cat([*columns, boxes.labels[:, None]], dim=1))
    expected = torch.cat(expected).numpy()
    assert len(found) > 10
    for prediction in found:
        row = [*prediction.bbox.to_xyxy(), prediction.score.value]
        distance = np.abs(expected - [*row, prediction.category.id]).max(axis=1)
        assert distance.min() < 0.01, prediction
    assert max(p.bbox.maxx for p in found) > 600
    assert names['boxes'][0]['bbox'][2] > 0


@pytest.mark.works_with(
    'supervision', 'draw, count and track boxes', 'recipes.md#boxes-in-supervision'
)
def test_supervision_recipe_takes_and_draws_mmdets_boxes(project):
    pytest.importorskip('supervision', reason='tools/setup.sh installs it')
    names = run_recipe('sv.BoxAnnotator', {'cuda:0': 'cpu', '0.3': '0.6'})
    detector = init_detector('mine.py', 'mine.pth', device='cpu')
    boxes = inference_detector(detector, cv2.imread('in.png')).pred_instances
    boxes = boxes[boxes.scores > 0.6]
    found = names['found']
    assert len(found) == len(boxes) > 0
    np.testing.assert_array_equal(found.xyxy, boxes.bboxes)
    np.testing.assert_array_equal(found.confidence, boxes.scores)
    assert names['names'] == [CLASSES[label] for label in boxes.labels]
    assert (cv2.imread('drawn.png') != cv2.imread('in.png')).any()


@pytest.mark.works_with(
    'Label Studio', 'correct detections by hand', 'recipes.md#boxes-in-label-studio'
)
def test_label_studio_recipe_turns_detections_into_predictions(project, monkeypatch):
    pytest.importorskip('label_studio_sdk', reason='tools/setup.sh installs it')
    settings = ('test_dataloader.dataset.indices=3', 'model.test_cfg.max_per_img=9')
    options = ('--cfg-options', 'test_evaluator.0.outfile_prefix=found', *settings)
    run_tool(ROOT / 'tools/test.py', 'mine.py', 'mine.pth', *options)
    annotations = str(ROOT / 'data/bccd/annotations/test.json')
    run_recipe('loadRes', {'data/mine/test.json': annotations})
    run_recipe('convert_coco_to_ls', {})

    results = json.loads((project / 'found.bbox.json').read_text())
    expected = [box for box in results if box['score'] > 0.3]
    content = json.loads((project / 'found.json').read_text())
    tasks = json.loads((project / 'tasks.json').read_text())
    assert len(tasks) == len(content['images'])
    found = []
    for image, task in zip(content['images'], tasks):
        assert task['data']['image'].endswith(image['file_name'])
        ((prediction),) = task['predictions']
        for box in prediction['result']:
            value, width, height = box['value'], image['width'], image['height']
            scale = np.array([width, height, width, height]) / 100
            sides = [value[key] for key in ('x', 'y', 'width', 'height')]
            found.append((image['id'], *value['rectanglelabels'], *sides * scale))
    assert len(found) == len(expected) > 0
    for (image_id, label, *box), result in zip(found, expected):
        assert image_id == result['image_id']
        assert label == CLASSES[result['category_id'] - 1]
        np.testing.assert_allclose(box, result['bbox'], atol=1e-3)
    interface = (project / 'tasks.label_config.xml').read_text()
    assert all(f'value="{name}"' in interface for name in CLASSES)
