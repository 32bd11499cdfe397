import csv
import json
import subprocess
import sys

import pytest
from mmengine.config import Config

from mmdet_consistent import analyze
from tests.support.tiny_detector import ROOT, save_weights, tiny_config
from tools import analyze as tool


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'give a config and a checkpoint, or results and ann'),
        (['a.py'], r'a config and a checkpoint per detector, got 1 path'),
        (['a.py', 'b.pth'], 'no such file: a.py'),
        (['--results', 'FILE'], 'results need ann'),
        (['--results', 'FILE', 'FILE', '--ann', 'FILE'], 'names must differ'),
        (
            ['--results', 'FILE', '--ann', 'FILE', '--names', 'a', 'b'],
            '1 needed, got 2',
        ),
        (['--results', 'FILE', '--ann', 'FILE', '--limit', '0'], 'at least 1, got 0'),
    ],
)
def test_tool_names_the_wrong_argument(monkeypatch, tmp_path, arguments, message):
    arguments = [__file__ if a == 'FILE' else a for a in arguments]
    command = ['analyze.py', '--out', str(tmp_path), *arguments]
    monkeypatch.setattr(sys, 'argv', command)
    with pytest.raises(SystemExit, match=f'^analyze: error: .*{message}'):
        tool.main()


@pytest.fixture(scope='module')
def compared(tmp_path_factory):
    """Run the program on two detectors and a result file: results and arguments."""
    folder = tmp_path_factory.mktemp('compared')
    pairs = []
    for name in ('retinanet_bccd', 'con_retinanet_bccd'):
        cfg = tiny_config(name)
        cfg.dump(folder / f'{name}.py')
        pairs += [folder / f'{name}.py', folder / f'{name}.pth']
        save_weights(cfg, pairs[-1])
    results = folder / 'third.json'
    results.write_text(
        '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}]'
    )
    out = folder / 'out'
    arguments = (*pairs, '--results', results, '--out', out, '--limit', '4')
    command = [sys.executable, 'tools/analyze.py', *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f'page: {out}/report.html' in done.stdout
    return out, arguments


@pytest.mark.slow
def test_analyze_compares_two_detectors_and_a_result_file(compared, tmp_path):
    out, arguments = compared
    numbers = json.loads((out / 'summary.json').read_text())
    assert list(numbers) == ['retinanet_bccd', 'con_retinanet_bccd', 'third']
    with open(out / 'tables' / 'ap.csv') as file:
        rows = list(csv.reader(file))
    assert rows[0] == ['metric', *numbers]
    assert float(rows[2][2]) == pytest.approx(
        100 * numbers['con_retinanet_bccd']['AP50'], abs=0.06
    )
    # Its own detections, read back from the file, give the same AP.
    truth = ROOT / 'data/bccd/annotations/test.json'
    written = out / 'data' / 'con_retinanet_bccd' / 'detections.json'
    again = analyze(results=[written], ann=truth, out=tmp_path, limit=4)
    assert again.numbers['detections']['AP'] == pytest.approx(
        numbers['con_retinanet_bccd']['AP'], abs=1e-6
    )
    assert again.page == tmp_path / 'report.html'
    assert {'ap', 'pr', 'pr-class0-RBC'} <= set(again.figures)
    assert {'thresholds', 'confusion-m0'} <= set(again.tables)
    assert all(f.is_file() for f in [*again.figures.values(), *again.tables.values()])
    assert again.summaries[0].confusion[:-1].sum() > 0
    # Another checkpoint under the same name is not mixed in.
    config, _, _, checkpoint, *_ = arguments
    other = dict(names=['retinanet_bccd'], out=out, limit=4)
    with pytest.raises(ValueError, match='was made with other settings'):
        analyze(Config.fromfile(config), checkpoint, **other)


@pytest.mark.slow
def test_analyze_writes_a_page_that_opens_without_errors(compared, browser):
    browser.open(compared[0] / 'report.html')
    assert browser.errors() == []
    assert browser.js('document.querySelectorAll("figure").length') > 12
