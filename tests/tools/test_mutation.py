"""tools/mutation.py, but for the run itself, which takes an hour."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'tools'))

import branch_coverage
import mutation

CODE = """
    def check(self, x):
        if x < {limit}:
            raise ValueError(
                f'{text} {{x}}'
            )
        return x
"""


def outcome(limit='0', text='too small:'):
    return dict(
        file='mmdet_consistent/heads/options.py',
        function='Options.check',
        was=CODE.format(limit='0', text='too small:'),
        now=CODE.format(limit=limit, text=text),
    )


def test_a_mutant_is_told_by_its_text():
    mutant = mutation.mutant_of(outcome(limit='1'))
    assert mutant == ('heads/options.py Options.check', 'if x < 0:', 'if x < 1:')


def test_only_an_errors_words_are_wording():
    assert mutation.is_wording(outcome(text='TOO SMALL:'))
    assert not mutation.is_wording(outcome(limit='1'))


@pytest.mark.skipif(sys.version_info < (3, 11), reason='tomllib')
def test_reasons_are_read_as_they_are_printed(tmp_path, monkeypatch):
    kept = mutation.read_reasons()
    assert kept and all(kept.values())
    mutant = mutation.mutant_of(outcome(limit='1'))
    lines = [
        '[[group]]',
        'reason = "So."',
        'mutants = [',
        mutation.as_toml(mutant),
        ']',
    ]
    file = tmp_path / 'reasons.toml'
    file.write_text('\n'.join(lines))
    monkeypatch.setattr(mutation, 'REASONS', file)
    assert mutation.read_reasons() == {mutant: 'So.'}


def test_the_page_counts_and_explains():
    dead = dict(outcome(), status='killed', alive=False)
    alive = dict(outcome(limit='1'), status='survived', alive=True)
    alive.update(mutant=mutation.mutant_of(alive), reason='Equal. There is no 0.')
    groups = mutation.survivors_by_reason([dead, alive])
    text = mutation.page([dead, alive], groups, 'torch 2', 'abc')
    assert '| `heads/options.py` | 2 | 1 | 0 | 1 | 0 |' in text
    assert '### 1 × equal\n\nThere is no 0.\n' in text
    assert '-if x < 0:\n+if x < 1:\n' in text


def test_coverage_is_added_up_by_folder():
    def entry(lines, branches):
        summary = dict(covered_lines=lines, num_statements=10)
        summary.update(covered_branches=branches, num_branches=10)
        return dict(summary=dict(summary, percent_covered=5 * (lines + branches)))

    files = {
        'mmdet_consistent/compat.py': entry(10, 10),
        'mmdet_consistent/heads/a.py': entry(9, 8),
        'mmdet_consistent/heads/additions/b.py': entry(10, 9),
    }
    text = branch_coverage.page(dict(files=files), 'torch 2')
    assert '| `heads` | 19 / 20 | 17 / 20 | 90.0 % |' in text
    assert '| **all** | 29 / 30 | 27 / 30 | 93.3 % |' in text
    assert text.count('`heads/a.py`') == 1 and 'b.py' not in text
