import csv
import importlib.util
import json
import re
import shutil
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


@pytest.mark.slow
def test_analyze_compares_two_detectors_and_a_result_file(run, tmp_path):
    pairs = []
    for name in ('retinanet_bccd', 'con_retinanet_bccd'):
        cfg = tiny_config(name)
        cfg.dump(tmp_path / f'{name}.py')
        pairs += [tmp_path / f'{name}.py', tmp_path / f'{name}.pth']
        save_weights(cfg, pairs[-1])
    results = tmp_path / 'third.json'
    results.write_text(
        '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}]'
    )
    out = tmp_path / 'out'
    arguments = (*pairs, '--results', results, '--out', out, '--limit', '4')
    command = [sys.executable, 'tools/analyze.py', *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f'page: {out}/report.html' in done.stdout
    numbers = json.loads((out / 'summary.json').read_text())
    assert list(numbers) == ['retinanet_bccd', 'con_retinanet_bccd', 'third']
    with open(out / 'tables' / 'ap.csv') as file:
        rows = list(csv.reader(file))
    assert rows[0] == ['metric', *numbers]
    assert float(rows[2][2]) == pytest.approx(
        100 * numbers['con_retinanet_bccd']['AP50'], abs=0.06
    )
    # Its own detections, read back from the file, give the same AP.
    again = tmp_path / 'again'
    truth = ROOT / 'data/bccd/annotations/test.json'
    written = out / 'data' / 'con_retinanet_bccd' / 'detections.json'
    run('--results', written, '--ann', truth, '--out', again, '--limit', 4)
    numbers_again = json.loads((again / 'summary.json').read_text())
    assert numbers_again['detections']['AP'] == pytest.approx(
        numbers['con_retinanet_bccd']['AP'], abs=1e-6
    )
    figures = re.findall('<figure', (out / 'report.html').read_text())
    assert len(figures) > 12

    # Another checkpoint under the same name is not mixed in.
    shutil.copy(pairs[3], pairs[1])
    with pytest.raises(SystemExit, match='was made with other settings'):
        run(*arguments)
