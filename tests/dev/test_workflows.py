"""The workflows of GitHub Actions: valid, and the same as what runs elsewhere."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.processes import ROOT, run

FOLDER = ROOT / '.github/workflows'


def workflow(name):
    text = (FOLDER / f'{name}.yml').read_text()
    return yaml.load(text, yaml.BaseLoader)  # (`on` would be a bool otherwise)


@pytest.mark.works_with(
    'GitHub Actions', 'test each change, publish tagged versions', 'releasing.md'
)
def test_workflows_pass_actionlint():
    bin_folder = str(Path(sys.executable).parent)
    actionlint = shutil.which('actionlint') or shutil.which(
        'actionlint', path=bin_folder
    )
    if actionlint is None:
        pytest.skip('actionlint is not installed')
    run(actionlint, '-no-color', *sorted(FOLDER.glob('*.yml')))


def test_ci_workflow_runs_the_ci_script():
    steps = workflow('ci')['jobs']['test']['steps']
    commands = [step['run'] for step in steps if 'run' in step]
    assert commands == ['.ci/run']
    assert (ROOT / '.ci/run').stat().st_mode & 0o111


def test_release_workflow_publishes_what_was_tested_by_trusted_publishing():
    release = workflow('release')
    assert release['on'] == {'push': {'tags': ['v*']}}
    jobs = release['jobs']
    assert jobs['test']['uses'] == './.github/workflows/ci.yml'
    assert jobs['publish']['needs'] == ['test', 'build']
    assert jobs['publish']['permissions'] == {'id-token': 'write'}
    actions = [step['uses'] for step in jobs['publish']['steps']]
    assert actions[-1].startswith('pypa/gh-action-pypi-publish@')
