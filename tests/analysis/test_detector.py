"""A detector run over real images, interrupted and resumed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from mmdet_consistent.analysis import collect, detector
from mmdet_consistent.analysis.annotations import AnnotatedSet
from mmdet_consistent.analysis.columns import boxes_of
from mmdet_consistent.analysis.summary import Model, Summary
from tests.support.tiny_detector import save_weights, tiny_config

IMAGES = 6


@pytest.fixture(scope='module')
def collected(tmp_path_factory):
    folder = tmp_path_factory.mktemp('collected')
    cfg = tiny_config()
    weights = save_weights(cfg, folder / 'weights.pth')
    store, truth = detector.collect_detector(
        'ours', cfg, weights, folder / 'whole', limit=IMAGES, num_anchors=3000
    )
    return cfg, weights, folder, store, truth


def test_collect_detector_stores_complete_and_bounded_rows(collected):
    _, _, _, store, truth = collected
    ids = store.image_ids()
    assert ids == list(truth.images)[:IMAGES]
    anchors = store.load('anchors')
    assert len(anchors['weight']) <= 3000
    counts = store.load('counts')['anchors']
    assert counts.shape == (IMAGES, 3, 100)
    # Weights stand for all anchors, and the exact counts agree.
    assert anchors['weight'].sum() == pytest.approx(counts[:, 0].sum(), rel=1e-4)
    objects = store.load('objects')
    number = sum(len(truth.of_image(i).countable().boxes) for i in ids)
    assert len(objects['gt']) == number
    known = ~np.isnan(objects['loss'])
    assert known.any()
    assert (objects['loss'][known] >= 0).all()


def test_collect_detector_stores_the_models_own_detections(collected):
    cfg, weights, _, store, _ = collected
    model = detector.build_model(cfg, weights, 'cpu')
    dataset = detector.build_dataset(cfg)
    # The first batch of the collection: alone, an image may give other last bits.
    batch = pseudo_collate([dataset[0], dataset[1]])
    with torch.no_grad():
        samples = model.test_step(batch)
    rows = store.load('detections')
    for sample in samples:
        instances = sample.pred_instances
        own = rows['image_id'] == sample.img_id
        np.testing.assert_allclose(rows['score'][own], instances.scores, rtol=1e-4)
        np.testing.assert_allclose(boxes_of(rows, own), instances.bboxes, atol=0.05)


def test_collect_detector_resumes_an_interrupted_run(collected, monkeypatch):
    cfg, weights, folder, whole, _ = collected
    real, calls = collect.object_rows, []

    def stop_at_the_fifth(*args, **kwargs):
        calls.append(args[0])
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    options = dict(limit=IMAGES, num_anchors=3000, shard_images=2)
    monkeypatch.setattr(collect, 'object_rows', stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        detector.collect_detector('ours', cfg, weights, folder / 'parts', **options)
    monkeypatch.setattr(collect, 'object_rows', real)
    store, _ = detector.collect_detector(
        'ours', cfg, weights, folder / 'parts', **options
    )
    assert len(store.paths) == 3
    assert store.image_ids() == whole.image_ids()
    for name in ('detections', 'oracle', 'anchors', 'objects', 'counts'):
        again, once = store.load(name), whole.load(name)
        assert list(again) == list(once)
        for column, values in once.items():
            np.testing.assert_array_equal(again[column], values)


def test_summary_of_real_images_is_plausible(collected):
    *_, store, truth = collected
    summary = Summary(Model.from_store('ours', store), truth)
    gaps = summary.oracles
    assert gaps['as it is'] <= gaps['ranked by true IoU after NMS'] + 1e-9
    assert gaps['as it is'] <= gaps['ranked by true IoU before NMS'] + 1e-9
    assert len(summary.iou_of_iou) == 2
    assert summary.scalars['anchors at IoU >= 0.5 per image, prior'] > 0


def test_collect_detector_keeps_detections_of_an_anchor_free_detector(tmp_path, capsys):
    cfg = tiny_config('retinanet_bccd')
    cfg.model.type = 'FCOS'
    cfg.model.bbox_head = dict(
        type='FCOSHead', num_classes=3, in_channels=16, feat_channels=16, norm_cfg=None
    )
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    model.bbox_head.conv_cls.bias.data.fill_(0)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    store, truth = detector.collect_detector(
        'fcos', cfg, tmp_path / 'weights.pth', tmp_path / 'data', limit=2
    )
    assert 'FCOSHead has no anchors' in capsys.readouterr().err
    assert len(store.load('detections')['score']) > 0
    model = Model.from_store('fcos', store)
    assert model.num_stages == 0
    assert model.anchors == {}
    assert 'AP' in Summary(model, truth).scalars


def test_build_model_refuses_weights_of_another_model(collected, tmp_path):
    _, weights, *_ = collected
    cfg = tiny_config()
    cfg.model.bbox_head.reg_stages = 3
    with pytest.raises(ValueError, match=r'weights\.pth does not fit.*nothing for'):
        detector.build_model(cfg, weights, 'cpu')
    cfg = tiny_config()
    cfg.model.bbox_head.num_classes = 4
    with pytest.raises(ValueError, match=r'another shape for bbox_head\.retina_cls'):
        detector.build_model(cfg, weights, 'cpu')


def test_from_dataset_converts_annotations_without_a_coco_file():
    class Dataset:
        metainfo = dict(classes=('cat', 'dog'))

        def __len__(self):
            return 1

        def get_data_info(self, index):
            instances = [
                dict(bbox=[0, 0, 10, 20], bbox_label=1, ignore_flag=0),
                dict(bbox=[5, 5, 9, 9], bbox_label=0, ignore_flag=1),
            ]
            return dict(
                img_id='b',
                img_path='/a/b.jpg',
                width=30,
                height=40,
                instances=instances,
            )

    truth = AnnotatedSet.from_dataset(Dataset())
    assert truth.order == [0]
    objects = truth.of_image(0)
    assert objects.boxes.tolist() == [[0, 0, 10, 20], [5, 5, 9, 9]]
    assert objects.labels.tolist() == [1, 0]
    assert objects.countable().labels.tolist() == [1]
    assert truth.to_coco([0])['annotations'][0]['area'] == 200
    assert truth.image_path(0) == Path('/a/b.jpg')


def test_collect_detector_takes_joined_sets_and_names_other_classes(tmp_path, capsys):
    cfg = tiny_config()
    dataset = cfg.test_dataloader.dataset
    dataset.indices = 2
    joined = dict(type='ConcatDataset', datasets=[dataset, dataset])
    cfg.test_dataloader.dataset = joined
    weights = save_weights(cfg, tmp_path / 'weights.pth')
    content = torch.load(weights)
    names = ('Platelets', 'RBC', 'WBC')
    torch.save(dict(content, meta=dict(CLASSES=names)), weights)
    store, truth = detector.collect_detector(
        'ours', cfg, weights, tmp_path / 'data', num_anchors=1000
    )
    assert 'was trained with the classes' in capsys.readouterr().err
    assert store.image_ids() == truth.order == [0, 1, 2, 3]
    rows = store.load('detections')
    for first, second in ((0, 2), (1, 3)):  # the same images, under other numbers
        one, two = (rows['score'][rows['image_id'] == i] for i in (first, second))
        np.testing.assert_allclose(one, two, rtol=1e-4)
        assert len(one) > 0
    summary = Summary(Model.from_store('ours', store), truth)
    assert 0 <= summary.scalars['AP'] <= 1
