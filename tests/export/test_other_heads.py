"""Each consistent head exports, with and without additions, or is refused."""

import runpy

import pytest

from mmdet_consistent.heads.other.make_consistent import NAMED
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

from mmdet_consistent.export import export_onnx  # noqa: E402

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
    if name == 'PAAHead':
        config['score_voting'] = False
    config.update(type=f'Consistent{name}', additions=additions)
    return toy_detector(other_heads.build(config), **test_cfg)


CASES = [(name, []) for name in EXPORTED] + list(ADDITIONS.items())


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
    engines = [tool['load'](str(path), backend) for backend in tool['BACKENDS']]
    for shape in SHAPES:
        images, sizes = make_images(*shape)
        expected = by_mmdet(detector, images, sizes)
        for engine in engines:
            outputs = engine.run(
                ['boxes', 'scores', 'labels'], dict(images=images, sizes=sizes)
            )
            assert_same_detections(outputs, expected)
