"""Each consistent head exports, with and without additions, or is refused."""

import runpy

import cv2
import numpy as np
import pytest

from mmdet_consistent.additions import Addition
from mmdet_consistent.heads.other.make_consistent import NAMED
from mmdet_consistent.utils.errors import ConfigError
from tests.support import other_heads
from tests.support.exporting import (
    assert_same_detections,
    by_mmdet,
    make_images,
    toy_detector,
)
from tests.support.processes import ROOT

onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnx')

from mmdet_consistent.export import DeployableDetector, export_onnx  # noqa: E402

REFUSED = {'RPNHead', 'YOLACTHead'}
# (SSDHead's detectors are in test_onnx.py, and PISA's differs in its loss alone.)
EXPORTED = sorted({head.__name__ for head in NAMED} - REFUSED - {'SSDHead'})
ALIGNED, CONFIDENCE = dict(type='AlignedFeatures'), dict(type='LocalizationConfidence')
# Those that change what a detector predicts, with a head of each way to predict.
ADDITIONS = {
    'ATSSHead': [ALIGNED],
    'YOLOFHead': [ALIGNED, CONFIDENCE],
    'PAAHead': [ALIGNED],
    'FSAFHead': [dict(type='SoftLabels'), CONFIDENCE],
}
# Of several images and of one; the second has the features of the exporter's example,
# turned: a size that was taken for a constant would fit there, and be wrong.
SHAPES = ((2, 203, 141), (1, 352, 320))


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(ROOT / 'tools/predict_onnx.py'))


def build(name, additions=(), **test_cfg):
    """A detector with the head, of fewer levels."""
    if name == 'PAAHead':
        pytest.importorskip('sklearn', reason="mmdet's PAAHead needs it")
    config = other_heads.small_config(name)
    anchors = config['anchor_generator']
    if 'SSD' not in name and name != 'YOLOFHead':
        anchors['strides'] = anchors['strides'][1::2][:2]
    config.update(type=f'Consistent{name}', additions=additions)
    return toy_detector(other_heads.build(config), **test_cfg)


CASES = [(name, []) for name in EXPORTED] + list(ADDITIONS.items())


@pytest.mark.works_with(
    'ONNX Runtime', 'detection without PyTorch', 'export.md#inference-without-pytorch'
)
@pytest.mark.works_with(
    'OpenVINO', 'detection without PyTorch', 'export.md#inference-without-pytorch'
)
@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'additions'),
    CASES,
    ids=['+'.join([name, *(a['type'] for a in found)]) for name, found in CASES],
)
def test_exported_head_equals_mmdets_predict_in_each_engine(
    tmp_path, tool, name, additions
):
    detector = build(name, additions)
    path = tmp_path / 'model.onnx'
    export_onnx(detector, path)
    batches = [make_images(*shape) for shape in SHAPES]
    expected = [by_mmdet(detector, *batch) for batch in batches]
    for backend in tool['BACKENDS']:
        pytest.importorskip(backend, reason='an engine is not installed')
        engine = tool['load'](str(path), backend)
        for (images, sizes), found in zip(batches, expected):
            inputs = dict(images=images, sizes=sizes)
            outputs = engine.run(['boxes', 'scores', 'labels'], inputs)
            assert_same_detections(outputs, found)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ATSSHead', 'GFLHead', 'PAAHead'])
def test_export_without_suppression_returns_all_scores_of_mmdet(tmp_path, name):
    detector = build(name)
    detector.bbox_head.with_score_voting = False  # PAA's, which follows suppression
    path = tmp_path / 'model.onnx'
    export_onnx(detector, path, nms=False)
    session = onnxruntime.InferenceSession(str(path))
    images, sizes = make_images(2, 203, 141)
    boxes, scores = session.run(None, dict(images=images, sizes=sizes))
    assert scores.shape == (2, boxes.shape[1], other_heads.CLASSES)
    # With nothing suppressed, mmdet's detections are all boxes with all scores.
    limits = dict(nms_pre=10**9, score_thr=0.0, max_per_img=10**9)
    detector.bbox_head.test_cfg.update(**limits, nms=dict(type='nms', iou_threshold=1))
    for found, own in zip(by_mmdet(detector, images, sizes), scores):
        assert len(found) == own.size
        np.testing.assert_allclose(np.sort(own.ravel())[::-1], found.scores, atol=1e-4)
    assert (boxes >= 0).all()
    assert (boxes <= np.tile(sizes[:, None, ::-1], (1, 1, 2))).all()


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('RPNHead', r"type='ConsistentRPNHead' cannot be exported: it has its own _pr"),
        (
            'YOLACTHead',
            "type='ConsistentYOLACTHead' cannot be exported: it has its own",
        ),
    ],
)
def test_head_that_cannot_be_exported_is_refused_in_a_sentence(name, message):
    detector = toy_detector(other_heads.build_consistent(name))
    with pytest.raises(ConfigError, match=message):
        DeployableDetector(detector, nms=True)


def test_addition_that_an_exported_head_would_ignore_is_refused():
    class Halved(Addition):
        def post_process(self, base, results, *args, **kwargs):
            results.scores = results.scores / 2
            return base(results, *args, **kwargs)

    detector = build('PAAHead')
    detector.bbox_head.additions.append(Halved())
    with pytest.raises(ConfigError, match=r'additions\.0: ConsistentPAAHead is export'):
        DeployableDetector(detector, nms=True)


def test_grayscale_detector_exports_and_predicts_from_a_file(tmp_path, tool):
    head = build('ATSSHead').bbox_head
    detector = toy_detector(head, in_channels=1)
    path = tmp_path / 'model.onnx'
    with pytest.raises(ConfigError, match='takes no images of three channels'):
        export_onnx(detector, path)
    export_onnx(detector, path, channels=1)
    images, sizes = make_images(1, 93, 141, channels=1)
    cv2.imwrite(str(tmp_path / 'gray.png'), images[0])
    session = tool['load'](str(path))
    gray = cv2.imread(str(tmp_path / 'gray.png'), cv2.IMREAD_GRAYSCALE)
    [(boxes, scores, labels)] = tool['predict'](session, [gray])
    [expected] = by_mmdet(detector, images, sizes)
    assert_same_detections([[boxes], [scores], [labels]], [expected])
