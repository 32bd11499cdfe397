import time
from dataclasses import replace

import pytest
import torch

from tools.dev.benchmark import measure as measuring
from tools.dev.benchmark import presets
from tools.dev.benchmark.cases import ADDITIONS, Case, Contender, Task, contenders_of
from tools.dev.benchmark.results import MEMORY
from tools.dev.benchmark.workloads import prepare, total_loss

TINY = dict(height=64, width=64, classes=3, ground_truths=4)
BOTH = ('mmdet', 'consistent')


def build(case, names):
    """The workloads of contenders, by name."""
    make, _ = prepare(case)
    return {name: make(Contender.parse(name)) for name in names}


def losses(work):
    return work.loss(*work.outputs, work.ground_truths, work.metas)


@pytest.mark.parametrize('detector', ['retinanet', 'ssd'])
@pytest.mark.parametrize('shapes', ['equal', 'varied'])
def test_all_contenders_get_the_same_inputs(detector, shapes):
    case = Case(detector=detector, shapes=shapes, **TINY)
    assert prepare(case)[1] > 300
    first = {
        name: {k: v for k, v in losses(work).items() if k in ('loss_cls', 'loss_bbox')}
        for name, work in build(case, contenders_of(detector)).items()
    }
    expected = total_loss(first['mmdet'])
    assert expected > 0
    for name, found in first.items():
        torch.testing.assert_close(
            total_loss(found), expected, rtol=1e-5, atol=0, msg=lambda m, n=name: n + m
        )


def test_varied_shapes_differ_between_images_and_repetitions():
    case = Case(height=512, width=640, batch=4, shapes='varied')
    work = build(case, ('consistent',))['consistent']
    seen = []
    for _ in range(3):
        work.reset()
        shapes = {meta['pad_shape'] for meta in work.metas}
        assert len(shapes) > 1
        assert all(
            384 <= height <= 512 and 480 <= width <= 640
            for height, width in (meta['img_shape'] for meta in work.metas)
        )
        seen.append(tuple(meta['pad_shape'] for meta in work.metas))
    assert len(set(seen)) == 3
    for instances in work.ground_truths:
        assert (instances.bboxes.amax(0)[2:] <= torch.tensor([480.0, 384.0])).all()


@pytest.mark.parametrize('detector', ['retinanet', 'ssd'])
def test_later_stage_has_positives_of_its_own(detector):
    works = build(Case(detector=detector, **TINY), ('consistent',))
    found = losses(works['consistent'])
    assert found['num_pos'] > 0
    assert found['num_pos_s1'] > 0
    assert total_loss({'loss': found['loss_bbox_s1']}) > 0


@pytest.mark.parametrize('dtype', ['fp32', 'bf16'])
def test_measure_returns_a_row_per_contender_and_part(dtype):
    task = Task.of(Case(dtype=dtype, **TINY), BOTH, 'head_loss')
    threads = torch.get_num_threads()
    rows, errors = measuring.measure(task, repetitions=2, seconds=0)
    assert not errors
    assert torch.get_num_threads() == threads
    parts = ('forward', 'backward', 'total', MEMORY)
    rows = rows.set_index(['contender', 'part'])
    assert set(rows.index) == {(c, p) for c in BOTH for p in parts}
    assert (rows['median'] > 0).all()
    assert (rows['repetitions'] <= 2).all()
    assert (rows.loc['mmdet', 'ratio'] == 1).all()
    # mmdet makes a dozen tensors as large as the logits.
    memory = rows.loc[('mmdet', MEMORY)]
    logits = 2 * memory['anchors'] * 3 * (4 if dtype == 'fp32' else 2)
    assert memory['median'] * 1e6 > 2 * logits


@pytest.mark.parametrize('broken', BOTH)
def test_measure_goes_on_without_a_contender_that_fails(broken, monkeypatch):
    first_run = measuring.first_run

    def fail(work, contender):
        if contender.name == broken:
            raise RuntimeError('out of everything')
        return first_run(work, contender)

    monkeypatch.setattr(measuring, 'first_run', fail)
    task = Task.of(Case(**TINY), (*BOTH, 'one_stage'), 'head_loss')
    rows, errors = measuring.measure(task, repetitions=1, seconds=0)
    assert errors == [f'{broken}: RuntimeError: out of everything']
    assert set(rows['contender']) == {*BOTH, 'one_stage'} - {broken}
    assert rows['ratio'].isna().all() == (broken == 'mmdet')


def test_head_of_mmdet_lacks_bfloat16_on_cuda():
    case = Case(dtype='bf16', device='cuda')
    assert Contender('mmdet').lacks_operator(case)
    assert not Contender('consistent').lacks_operator(case)
    for change in (
        dict(dtype='fp32'),
        dict(device='cpu'),
        dict(detector='ssd'),
        dict(workload='inference'),
    ):
        assert not Contender('mmdet').lacks_operator(replace(case, **change))


def test_no_ground_truth_is_a_case_too():
    works = build(Case(**{**TINY, 'ground_truths': 0}), ('consistent',))
    assert losses(works['consistent'])['num_pos_s1'] == 0


@pytest.mark.parametrize('detector', ['retinanet', 'ssd'])
def test_post_processing_finds_about_as_many_boxes(detector):
    case = Case(workload='postprocess', detector=detector, **TINY)
    found = {}
    for name, work in build(case, BOTH).items():
        with torch.no_grad():
            results = work.head.predict_by_feat(
                *work.outputs, batch_img_metas=work.metas
            )
        found[name] = [len(instances) for instances in results]
    assert min(found['mmdet']) > 0
    # Same scores; the boxes' second step may change what is suppressed.
    assert found['consistent'] == pytest.approx(found['mmdet'], rel=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('workload', 'contender'),
    [('train_step', 'consistent+channels_last'), ('inference', 'consistent')],
)
def test_whole_detectors_run_and_keep_their_weights(workload, contender):
    case = Case(workload=workload, **TINY, batch=1)
    work = build(case, (contender,))[contender]
    before = [parameter.detach().clone() for parameter in work.model.parameters()]
    parts = work(time.perf_counter)
    assert list(parts) == ['total']
    assert 0 < parts['total'] < 60
    # Every repetition does the same work: nothing was learnt.
    for parameter, old in zip(work.model.parameters(), before):
        assert torch.equal(parameter, old)


@pytest.mark.parametrize('detector', ['retinanet', 'ssd'])
def test_additions_are_measured_in_their_own_preset_only(detector):
    assert not set(ADDITIONS) & set(contenders_of(detector))
    tasks = presets.preset(['additions'])
    workloads = {t.case.workload for t in tasks if t.case.detector == detector}
    assert workloads == {'train_step', 'inference'}
    for task in tasks:
        assert set(ADDITIONS) < {contender.head for contender in task.contenders}


def test_unknown_contenders_and_modes_are_refused():
    contender = Contender.parse('consistent+compile')
    assert contender == ('consistent', 'compile')
    assert contender.name == 'consistent+compile'
    with pytest.raises(ValueError, match="unknown contender 'yolo'"):
        Contender.parse('yolo')
    with pytest.raises(ValueError, match=r'\+compile is for head_loss, not for train'):
        Task.of(Case(workload='train_step', **TINY), ('mmdet+compile',), 'custom')
