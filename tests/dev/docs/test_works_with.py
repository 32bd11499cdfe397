"""docs/works_with.md: rows are the marks of tests, in the order of the site."""

import pytest

from tools.dev.docs import works_with
from tools.dev.docs.links import broken_links

pytestmark = pytest.mark.docs
MARK = '@pytest.mark.works_with'


@pytest.fixture
def root(tmp_path):
    (tmp_path / 'docs').mkdir()
    (tmp_path / 'tests/tools').mkdir(parents=True)
    (tmp_path / 'mkdocs.yml').write_text('nav:\n  - first.md\n  - second.md\n')
    (tmp_path / 'docs/first.md').write_text('# First\n## One\n## Two `a`\n')
    (tmp_path / 'docs/second.md').write_text('# Second\n')
    return tmp_path


def write_tests(root, name, *marks):
    text = ''.join(f'{mark}\ndef test_{i}(): ...\n' for i, mark in enumerate(marks))
    (root / f'tests/tools/{name}.py').write_text(text)


def test_page_has_a_row_per_mark_in_the_order_of_pages_and_headings(root):
    write_tests(
        root,
        'test_a',
        f"{MARK}('Last', 'end', 'second.md')",
        f"{MARK}('Y', 'do', 'first.md#two-a')",
        f"{MARK}('X', 'do', 'first.md#one')",
    )
    write_tests(root, 'test_b', f"{MARK}(\n    'Y', 'do', 'first.md#two-a'\n)")
    a, b = (f'[`tests/tools/test_{x}.py`](../tests/tools/test_{x}.py)' for x in 'ab')
    rows = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in works_with.page(root).splitlines()
        if 'tests/' in line
    ]
    assert rows == [
        ['X', 'do', '[One](first.md#one)', a],
        ['Y', 'do', '[Two a](first.md#two-a)', f'{a}, {b}'],
        ['Last', 'end', '[Second](second.md)', a],
    ]


def test_link_check_names_the_page_or_heading_that_a_mark_misspells(root):
    write_tests(
        root,
        'test_a',
        f"{MARK}('X', 'do', 'first.md#three')",
        f"{MARK}('Y', 'do', 'third.md')",
    )
    (root / 'docs/works_with.md').write_text(works_with.page(root))
    (root / 'docs/versions.md').touch()
    assert broken_links(root) == [
        'docs/works_with.md: first.md#three is not a heading',
        'docs/works_with.md: third.md does not exist',
    ]


@pytest.mark.parametrize(
    'arguments', ["'X', 'do'", "'X', 'do', NAME", "'X', 'do', page='first.md'"]
)
def test_mark_without_three_literals_is_refused_with_its_place(root, arguments):
    write_tests(root, 'test_a', f'{MARK}({arguments})')
    with pytest.raises(ValueError, match=r'tests/tools/test_a\.py:1: .* literals'):
        works_with.collect(root)
