"""The GPU check runs end to end without a GPU."""

import csv
from functools import partial

from tools.dev.gpu import heads
from tools.dev.gpu.rows import Check, Row, read_rows, write_rows


def test_heads_checks_find_nothing_wrong_on_a_cpu(tmp_path, monkeypatch):
    fast = [c for c in heads.CHECKS if c is not heads.measure_speed]
    monkeypatch.setattr(heads, 'CHECKS', fast)
    assert write_rows(heads.checks(heads.DRY), tmp_path / 'gpu.csv') == 0
    with (tmp_path / 'gpu.csv').open() as file:
        header, *rows = csv.reader(file)
    assert header == list(Row._fields)
    assert {row[0] for row in rows} >= {
        'loss and gradients as on the CPU',
        "one stage as mmdet's head",
        'half precision as float32',
    }
    assert all(row[3] in ('yes', '') for row in rows)


def test_a_failing_check_costs_its_own_row_only(tmp_path):
    def fails(setting):
        yield Row('before', setting, '1', 'yes')
        raise RuntimeError('no such operator\nwith details')

    def works(setting):
        yield Row('works', setting, '1', 'yes')

    checks = [
        Check(function.__name__, setting, partial(function, setting))
        for function in (fails, works)
        for setting in ('retinanet', 'ssd')
    ]
    path = tmp_path / 'new' / 'gpu.csv'
    assert write_rows(checks, path) == 2
    assert read_rows(path)[:2] == [
        Row('before', 'retinanet', '1', 'yes'),
        Row('fails', 'retinanet', 'RuntimeError: no such operator', 'no'),
    ]
    text = path.read_text()
    assert text.count('before,') == text.count('works,') == 2


def test_rows_are_written_as_they_come(tmp_path):
    path = tmp_path / 'gpu.csv'
    seen = []

    def rows():
        yield Row('first', '', '1', 'yes')
        seen.extend(read_rows(path))

    write_rows([Check('any', '', rows)], path)
    assert seen == [Row('first', '', '1', 'yes')]
