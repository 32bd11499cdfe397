import csv
import importlib.util
import json
import re
import subprocess
import sys

import pytest

from tests.support.tiny_detector import ROOT, save_weights, tiny_config


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('analyze', ROOT / 'tools/analyze.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'give CONFIG CHECKPOINT, or --results with --ann'),
        (['a.py'], r'pairs of CONFIG CHECKPOINT, got 1 path'),
        (['a.py', 'b.pth'], 'no such file: a.py'),
        (['--results', 'FILE'], '--results needs --ann'),
        (['--results', 'FILE', 'FILE', '--ann', 'FILE'], 'names must differ'),
        (
            ['--results', 'FILE', '--ann', 'FILE', '--names', 'a', 'b'],
            '1 needed, got 2',
        ),
        (['--results', 'FILE', '--ann', 'FILE', '--limit', '0'], 'at least 1, got 0'),
    ],
)
def test_parse_args_names_the_wrong_argument(
    tool, monkeypatch, capsys, arguments, message
):
    arguments = [__file__ if a == 'FILE' else a for a in arguments]
    monkeypatch.setattr(sys, 'argv', ['analyze.py', '--out', 'x', *arguments])
    with pytest.raises(SystemExit):
        tool.parse_args()
    assert re.search(message, capsys.readouterr().err)


@pytest.fixture
def run(tool, monkeypatch):
    """The tool in this process."""

    def main(*arguments):
        monkeypatch.setattr(sys, 'argv', ['analyze.py', *map(str, arguments)])
        tool.main()

    return main


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
def test_analyze_compares_two_detectors_and_a_result_file(compared, run, tmp_path):
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
    run('--results', written, '--ann', truth, '--out', tmp_path, '--limit', 4)
    again = json.loads((tmp_path / 'summary.json').read_text())
    assert again['detections']['AP'] == pytest.approx(
        numbers['con_retinanet_bccd']['AP'], abs=1e-6
    )
    # Another checkpoint under the same name is not mixed in.
    config, _, _, checkpoint, *_ = arguments
    other = ('--names', 'retinanet_bccd', '--out', out, '--limit', 4)
    with pytest.raises(SystemExit, match='was made with other settings'):
        run(config, checkpoint, *other)


@pytest.mark.slow
def test_analyze_writes_a_page_that_opens_without_errors(compared, browser):
    browser.open(compared[0] / 'report.html')
    assert browser.errors() == []
    assert browser.js('document.querySelectorAll("figure").length') > 12
