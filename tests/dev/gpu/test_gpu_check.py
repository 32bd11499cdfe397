"""The GPU check runs end to end without a GPU."""

import csv

from tools.dev.gpu import check
from tools.dev.gpu.check import DRY, Row, run_checks


def test_run_checks_finds_nothing_wrong_on_a_cpu(tmp_path, monkeypatch):
    fast = [c for c in check.CHECKS if c is not check.measure_speed]
    monkeypatch.setattr(check, 'CHECKS', fast)
    assert run_checks(DRY, tmp_path / 'gpu.csv') == 0
    with (tmp_path / 'gpu.csv').open() as file:
        header, *rows = csv.reader(file)
    assert header == list(Row._fields)
    assert {row[0] for row in rows} >= {
        'loss and gradients as on the CPU',
        "one stage as mmdet's head",
        'half precision as float32',
    }
    assert all(row[3] in ('yes', '') for row in rows)


def test_a_failing_check_costs_its_own_row_only(tmp_path, monkeypatch):
    def fails(sizes, detector):
        yield Row('before', detector, '1', 'yes')
        raise RuntimeError('no such operator')

    def works(sizes, detector):
        yield Row('works', detector, '1', 'yes')

    monkeypatch.setattr(check, 'CHECKS', (fails, works))
    assert run_checks(DRY, tmp_path / 'gpu.csv') == 2
    text = (tmp_path / 'gpu.csv').read_text()
    assert text.count('RuntimeError: no such operator') == 2
    assert text.count('before,') == text.count('works,') == 2
