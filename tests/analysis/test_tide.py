import numpy as np
import pytest

from mmdet_consistent.analysis import measures
from mmdet_consistent.analysis.tide import ERRORS, error_shares
from tests.support.analysis import random_split, table, truth_of


def test_error_shares_of_one_error_of_each_kind():
    truth = truth_of(
        [
            (1, 0, 0, 0, 10, 10),
            (1, 0, 50, 0, 60, 10),
            (1, 1, 100, 0, 110, 10),
            (1, 1, 150, 0, 160, 10),
        ],
        num_classes=2,
    )
    detections = table(
        [
            (1, 0, 0.9, 0, 0, 10, 10),  # right
            (1, 0, 0.8, 0, 0, 10, 9),  # duplicate
            (1, 0, 0.7, 50, 0, 60, 4),  # class 0 there, IoU 0.4: inexact
            (1, 0, 0.6, 100, 0, 110, 10),  # an object of class 1: wrong class
            (1, 0, 0.5, 150, 0, 160, 3),  # class 1, IoU 0.3: both
            (1, 1, 0.4, 0, 100, 10, 110),  # nothing there
        ]
    )
    result = error_shares(detections, truth, [1])
    expected = dict(Cls=1, Loc=1, Both=1, Dupe=1, Bkg=1, Miss=1)
    assert result.counts == expected
    # Class 0: recall 0.5 at precision 1 → 51/101. Class 1: nothing → 0.
    base = 51 / 101 / 2
    assert result.ap50 == pytest.approx(base)
    # Inexact box mended: right, wrong, right → precision 2/3 for the second half.
    assert result.gains['Loc'] == pytest.approx((51 + 50 * 2 / 3) / 202 - base)
    # Class mended: class 1 has score 0.6 right, 0.4 wrong → recall 0.5, 51/101.
    assert result.gains['Cls'] == pytest.approx(51 / 202)
    # Wrong ones after the last right one cost nothing.
    assert [result.gains[e] for e in ('Both', 'Dupe', 'Bkg')] == [0, 0, 0]
    # The object of class 1 that only 'Both' saw is missed; without it one is left,
    # which is still not found.
    assert result.gains['Miss'] == pytest.approx(0)


# Results of tidecv 1.0.1 for these splits (AP50 and gains in per cent, counts).
TIDECV = {
    (0, 0.0): (
        35.72310954096545,
        [3.551967126365156, 17.63818995894789, 1.641144883719143],
        [2.5422100379911825, 11.99388010671725, 5.448502978376659],
        [4, 15, 2, 17, 16, 5],
    ),
    (0, 0.3): (
        41.982640571749464,
        [4.638418475955902, 5.128062983133006, 1.0367630169610464],
        [2.0919317206446095, 21.98349517225978, 2.4801133959549873],
        [3, 9, 8, 15, 23, 2],
    ),
    (2, 0.3): (
        37.62769134056261,
        [0.0, 9.157040704070404, 0.6286342920006192],
        [1.2942008486562884, 11.421499292786464, 17.714628605717714],
        [3, 9, 7, 9, 17, 8],
    ),
}


@pytest.mark.parametrize('case', TIDECV, ids=str)
def test_error_shares_equal_recorded_results_of_tidecv(case):
    detections, truth, image_ids = random_split(case[0], crowd_share=case[1])
    ap, gains, more_gains, counts = TIDECV[case]
    result = error_shares(detections, truth, image_ids)
    assert [result.counts[e] for e in ERRORS] == counts
    found = [100 * result.gains[e] for e in ERRORS]
    np.testing.assert_allclose(found, gains + more_gains, atol=1e-9)
    assert 100 * result.ap50 == pytest.approx(ap)


def test_error_shares_equal_tidecv_where_it_is_installed(monkeypatch):
    quantify = pytest.importorskip('tidecv.quantify', reason='tidecv not installed')
    from tidecv.data import Data

    # tidecv's own grid of recalls, which differs from COCO's in the last bit.
    monkeypatch.setattr(measures, 'RECALLS', np.arange(101) / 100)
    for seed in range(20):
        detections, truth, image_ids = random_split(seed, crowd_share=0.2)
        ground, found = Data('ground'), Data('found')
        for image_id in image_ids:
            ground._make_default_image(image_id)
            for box, label, crowd in zip(*truth.of_image(image_id)):
                add = ground.add_ignore_region if crowd else ground.add_ground_truth
                add(image_id, int(label), [*box[:2], *(box[2:] - box[:2])])
        for row in zip(*(detections[n].tolist() for n in detections)):
            image_id, label, score, x1, y1, x2, y2 = row
            found.add_detection(image_id, label, score, [x1, y1, x2 - x1, y2 - y1])
        run = quantify.TIDERun(ground, found, 0.5, 0.1, 'bbox', 100)
        result = error_shares(detections, truth, image_ids)
        counts = {k.short_name: v for k, v in run.count_errors().items()}
        gains = {k.short_name: v / 100 for k, v in run.fix_main_errors().items()}
        assert result.counts == counts
        assert result.gains == pytest.approx(gains)
