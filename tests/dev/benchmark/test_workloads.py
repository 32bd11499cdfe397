import time

import pytest
import torch

from tools.dev.benchmark import presets
from tools.dev.benchmark.cases import Case, Task
from tools.dev.benchmark.contenders import ADDITIONS, contenders_of, split_contender
from tools.dev.benchmark.measure import measure
from tools.dev.benchmark.results import MEMORY
from tools.dev.benchmark.workloads import build_workloads, total_loss

TINY = dict(height=64, width=64, classes=3, ground_truths=4)


def losses(work):
    return work.loss(*work.outputs, work.scene.ground_truths, work.scene.metas)


@pytest.mark.parametrize('detector', ['retinanet', 'ssd'])
def test_all_contenders_meet_the_same_inputs(detector):
    case = Case(detector=detector, **TINY)
    works, anchors = build_workloads(case, contenders_of(detector))
    assert anchors > 300
    first = {
        name: {k: v for k, v in losses(work).items() if k in ('loss_cls', 'loss_bbox')}
        for name, work in works.items()
    }
    expected = total_loss(first['mmdet'])
    assert expected > 0
    for name, found in first.items():
        torch.testing.assert_close(
            total_loss(found), expected, rtol=1e-5, atol=0, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize('detector', ['retinanet', 'ssd'])
def test_the_later_stage_has_positives_of_its_own(detector):
    case = Case(detector=detector, **TINY)
    works, _ = build_workloads(case, ('consistent',))
    found = losses(works['consistent'])
    assert found['num_pos'] > 0
    assert found['num_pos_s1'] > 0
    assert found['loss_bbox_s1'] > 0


@pytest.mark.parametrize('dtype', ['fp32', 'bf16'])
def test_head_loss_rows(dtype):
    case = Case(dtype=dtype, **TINY)
    task = Task(case, ('mmdet', 'consistent'), ('head_loss',))
    threads = torch.get_num_threads()
    rows = {(r.contender, r.part): r for r in measure(task, repetitions=2, seconds=0)}
    assert torch.get_num_threads() == threads
    parts = ('forward', 'backward', 'total', MEMORY)
    assert set(rows) == {(c, p) for c in task.contenders for p in parts}
    assert all(r.value.median > 0 and r.repetitions <= 2 for r in rows.values())
    assert all(rows['mmdet', p].ratio.median == 1 for p in parts)
    # mmdet makes a dozen tensors as large as the logits.
    logits = 2 * rows['mmdet', MEMORY].anchors * 3 * (4 if dtype == 'fp32' else 2)
    assert rows['mmdet', MEMORY].value.median * 1e6 > 2 * logits


def test_no_ground_truth_is_a_case_too():
    case = Case(**{**TINY, 'ground_truths': 0})
    works, _ = build_workloads(case, ('consistent',))
    assert losses(works['consistent'])['num_pos_s1'] == 0


@pytest.mark.parametrize('detector', ['retinanet', 'ssd'])
def test_post_processing_finds_the_same_number_of_boxes(detector):
    case = Case(workload='postprocess', detector=detector, **TINY)
    works, _ = build_workloads(case, ('mmdet', 'consistent'))
    found = {}
    for name, work in works.items():
        with torch.no_grad():
            results = work.head.predict_by_feat(
                *work.outputs, batch_img_metas=work.scene.metas
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
def test_whole_detectors_run_and_stay_as_they_are(workload, contender):
    case = Case(workload=workload, **TINY, batch=1)
    works, _ = build_workloads(case, (contender,))
    work = works[contender]
    before = [parameter.detach().clone() for parameter in work.model.parameters()]
    parts = work(time.perf_counter)
    assert list(parts) == ['total']
    assert 0 < parts['total'] < 60
    # Every repetition does the same work: nothing was learnt.
    for parameter, old in zip(work.model.parameters(), before):
        assert torch.equal(parameter, old)


@pytest.mark.parametrize('detector', ['retinanet', 'ssd'])
def test_what_goes_beyond_the_paper_is_measured_only_where_asked(detector):
    assert not set(ADDITIONS) & set(contenders_of(detector))
    tasks = presets.preset(['additions'])
    asked = {t.case.workload for t in tasks if t.case.detector == detector}
    assert asked == {'train_step', 'inference'}
    assert all(set(ADDITIONS) < set(task.contenders) for task in tasks)


def test_unknown_contenders_and_modes_are_refused():
    assert split_contender('consistent+compile') == ('consistent', 'compile')
    with pytest.raises(ValueError, match="unknown contender 'yolo'"):
        split_contender('yolo')
    with pytest.raises(ValueError, match=r'\+compile is for head_loss, not for train'):
        build_workloads(Case(workload='train_step', **TINY), ('mmdet+compile',))
