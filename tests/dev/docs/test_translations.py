"""The check that the Chinese pages are in step with the English ones."""

import pytest

from tools.dev.docs import translations

pytestmark = pytest.mark.docs
ENGLISH = """# Title
See [x](docs/x.md).
## Use
```bash
run a.py  # comment
```
It gains +0.7.
"""
CHINESE = """# 标题
见 [x](../x.md)。
## 使用
```bash
run a.py  # 注释
```
提升 +0.7。
"""


@pytest.fixture
def pages(tmp_path, monkeypatch):
    english, chinese = tmp_path / 'a.md', tmp_path / 'docs/zh/a.md'
    monkeypatch.setattr(translations, 'PAGES', {'a.md': 'docs/zh/a.md'})
    for path in (english, chinese, tmp_path / translations.HASHES):
        path.parent.mkdir(parents=True, exist_ok=True)
    english.write_text(ENGLISH)
    chinese.write_text(CHINESE)
    translations.record(tmp_path)
    return tmp_path, english, chinese


def test_pages_in_step_have_no_differences(pages):
    assert translations.out_of_step(pages[0]) == []


@pytest.mark.parametrize(
    ('old', 'new', 'expected'),
    [
        ('It gains', 'It can gain', "a.md: 'Use' has changed since it was translated"),
        ('run a.py', 'run b.py', 'docs/zh/a.md: code differ from a.md: run b.py there'),
        ('+0.7', '+0.8', "figures differ from a.md: ['+0.8'] there, ['+0.7'] here"),
        ('docs/x.md', 'docs/y.md', "links differ from a.md: ['docs/y.md'] there"),
        ('## Use', '### Use', 'headings differ from a.md: ### there, ## here'),
    ],
)
def test_change_of_the_english_page_is_named(pages, old, new, expected):
    root, english, _ = pages
    english.write_text(ENGLISH.replace(old, new))
    problems = translations.out_of_step(root)
    assert any(expected in problem for problem in problems), problems


def test_record_accepts_the_sentences_but_not_other_code(pages):
    root, english, chinese = pages
    english.write_text(ENGLISH.replace('It gains', 'It can gain'))
    translations.record(root)
    assert translations.out_of_step(root) == []
    chinese.write_text(CHINESE.replace('run a.py', 'run c.py'))
    translations.record(root)
    assert len(translations.out_of_step(root)) == 1
