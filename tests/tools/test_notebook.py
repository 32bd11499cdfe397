"""The notebook of examples/ runs from the first cell to the last."""

import json

import pytest

from tests.support.processes import ROOT

nbclient = pytest.importorskip('nbclient', reason='nbclient is not installed')
pytest.importorskip('ipykernel', reason='ipykernel is not installed')
nbformat = pytest.importorskip('nbformat', reason='nbformat is not installed')

NOTEBOOK = ROOT / 'examples/quickstart.ipynb'


@pytest.fixture(scope='module')
def executed(tmp_path_factory):
    """The executed notebook, and the folder that it wrote into."""
    folder = tmp_path_factory.mktemp('notebook')
    text = NOTEBOOK.read_text(encoding='utf-8')
    assert text.count("'work_dirs/notebook'") == 1
    text = text.replace("'work_dirs/notebook'", f"'{folder}'")
    notebook = nbformat.reads(text, 4)
    where = dict(metadata=dict(path=str(NOTEBOOK.parent)))
    nbclient.NotebookClient(notebook, timeout=1200, resources=where).execute()
    return notebook, folder


@pytest.mark.slow
@pytest.mark.works_with(
    'Jupyter', 'the whole way in one notebook', 'getting_started.md#notebook'
)
def test_notebook_trains_draws_analyses_and_exports(executed):
    notebook, folder = executed
    codes = [cell for cell in notebook.cells if cell.cell_type == 'code']
    pictures = ['image/png' in json.dumps(cell.outputs) for cell in codes]
    assert pictures == [False, False, True, True, True]
    assert (folder / 'epoch_1.pth').is_file()
    assert (folder / 'analysis/report.html').is_file()
    numbers = json.loads((folder / 'analysis/summary.json').read_text())['cells']
    assert numbers['AP50'] > 0.7, 'the detector finds cells'
    assert (folder / 'cells.onnx').is_file()
    (printed,) = [o for o in codes[-1].outputs if o.get('name') == 'stdout']
    number, *_, difference, _ = printed.text.split()
    assert int(number) > 0
    assert float(difference) < 0.01


def test_notebook_has_ten_cells_and_no_path_of_a_machine():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds == ['markdown', 'code'] * 5
    text = NOTEBOOK.read_text(encoding='utf-8')
    assert not [
        start for start in ('/work/', '/home/', '/tmp/', '/root/') if start in text
    ]
