"""The page: complete without a network, and usable in a real browser."""

import configparser
import csv
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_consistent.analysis import report, tables
from mmdet_consistent.analysis.charts import Chart, Series, inline_svg, save
from mmdet_consistent.analysis.summary import Model
from tests.support.analysis import random_split, write_random_analysis

THRESHOLD_COLUMNS = ('threshold', 'F1', 'precision', 'recall')


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    write_random_analysis(folder)
    return folder


def test_write_analysis_writes_figures_and_tables(page):
    for name in ('ap', 'score-mean', 'before-after-m1-step2'):
        ElementTree.parse(page / 'figures' / f'{name}.svg')
        image = cv2.imread(str(page / 'figures' / f'{name}.png'))
        assert image.min() < 100 < image.max()
        assert (page / 'tables' / f'{name}.csv').read_text().count('\n') > 3
    assert not list(page.rglob('*.partial'))


def test_page_refers_to_no_other_file(page):
    text = (page / 'report.html').read_text()
    text = re.sub(r'xmlns(:xlink)?="[^"]+"', '', text)
    assert 'http://' not in text
    assert 'https://' not in text
    links = re.findall(r'\b(?:src|href)="([^"]*)"', text)
    assert links
    assert all(link.startswith(('#', 'data:')) for link in links)
    assert '@import' not in text
    assert '<link rel="stylesheet"' not in text


def test_page_has_unique_ids_and_no_dangling_reference(page):
    text = (page / 'report.html').read_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="|url\()#([\w.-]+)', text)
    references += re.findall(r'aria-labelledby="([^"]+)"', text)
    assert set(references) <= set(ids)


def test_page_describes_every_picture_and_escapes_names(page):
    text = (page / 'report.html').read_text()
    pictures = re.findall(r'<svg [^>]*>\s*(?:<title)?', text)
    assert len(pictures) > 15
    for picture in pictures:
        assert 'role="img"' in picture
        assert 'aria-label="' in picture or picture.endswith('<title')
    assert 'one &amp; &lt;only&gt;' in text
    assert '<only>' not in text
    assert text.count('<details>') == text.count('class="chart')
    assert 'Only the detections of three are known' in text


def test_chart_picture_table_and_words_agree(tmp_path):
    series = Series(0, 'ours', np.array([0.25, 0.75]), np.array([0.5, np.nan]))
    chart = Chart('k', 'A title', 'x', 'y', [series])
    assert chart.table() == (['x', 'ours'], [['0.250', '0.500'], ['0.750', '–']])
    assert 'ours: 0.500 at 0.25, 0.500 at 0.25' in chart.alt()
    root = ElementTree.fromstring(inline_svg('k', save(chart, tmp_path)))
    assert root[0].text == chart.alt()
    lines = [e for e in root.iter() if e.get('class') == 'of-m0']
    assert len(lines) >= 1
    assert 'var(--m0)' in ElementTree.tostring(lines[0]).decode()


def test_chart_table_of_a_density_map_sums_quarters():
    grid = np.zeros((8, 8))
    grid[0, 7], grid[7, 7], grid[6, 7] = 3, 1, 1
    chart = Chart('d', 't', 'in', 'out', [Series(0, 'm', (), grid)], 'density')
    rows = chart.table()[1]
    assert rows[0][1:] == ['0', '0', '0', '3']
    assert rows[3][1:] == ['0', '0', '0', '2']


def test_precision_curves_and_confusions_are_tables_too(page):
    with open(page / 'tables/thresholds.csv') as file:
        header, overall, *classes = csv.reader(file)
    assert header[1:5] == [f'{n} one & <only>' for n in THRESHOLD_COLUMNS]
    assert overall[0] == 'all, one threshold'
    assert [row[0] for row in classes] == ['class 0', 'class 1', 'class 2']
    with open(page / 'tables/confusion-m0.csv') as file:
        header, *rows = csv.reader(file)
    assert header == ['object', 'class 0', 'class 1', 'class 2', 'missed']
    assert rows[-1][0] == 'no object'
    counts = np.array([row[1:] for row in rows], int)
    recall = 100 * counts.diagonal()[:3] / counts.sum(1)[:3]
    assert float(overall[4]) == pytest.approx(recall.mean(), abs=1e-3)
    with open(page / 'tables/pr-class1-class-1.csv') as file:
        precision = [float(row[1]) for row in list(csv.reader(file))[1:]]
    with open(page / 'tables/classes.csv') as file:
        ap50 = float(list(csv.reader(file))[2][3])
    assert len(precision) == 101
    assert 100 * np.mean(precision) == pytest.approx(ap50, abs=0.1)


def test_page_merges_the_rarest_classes_and_files_keep_all(tmp_path, monkeypatch):
    monkeypatch.setattr(report, 'SHOWN_CLASSES', 1)
    drawn = []
    monkeypatch.setattr(
        report.charts, 'save', lambda chart, _: drawn.append(chart.key) or '<svg></svg>'
    )
    detections, truth, image_ids = random_split(0)
    model = Model('m', image_ids, detections)
    (summary,) = report.write_analysis([model], truth, tmp_path, 'a command')
    text = (tmp_path / 'report.html').read_text()
    most = truth.classes[int(np.argmax(summary.matched.num_objects))]
    assert f'<th scope="row">{most}</th>' in text
    assert '<th scope="row">2 other classes</th>' in text
    assert 'Charts of the 1 classes with the most objects' in text
    assert sum('-class' in key for key in drawn) == 2
    assert len(list(tmp_path.glob('tables/pr-class*.csv'))) == 3
    whole = summary.confusion
    header, rows = tables.confusion_table(summary, 1)
    merged = np.array([row[1:] for row in rows])
    assert merged.sum() == whole.sum()
    label = truth.classes.index(most)
    assert merged[0, 0] == whole[label, label]
    assert merged[0].tolist()[-1] == whole[label, -1]
    assert header[-1] == 'missed'


def visible(browser, selector):
    """Return the number of elements that take up space."""
    return browser.js(
        f'Array.from(document.querySelectorAll({selector!r}))'
        '.filter(e => e.getClientRects().length).length'
    )


@pytest.mark.parametrize(('width', 'dark'), [(1280, False), (390, True)])
def test_page_opens_without_errors_requests_or_overflow(page, browser, width, dark):
    browser.open(page / 'report.html', width, dark)
    assert browser.errors() == []
    assert browser.requests() == []
    # Wide tables scroll by themselves.
    assert browser.js('document.documentElement.scrollWidth') <= width
    paper = browser.js('getComputedStyle(document.body).backgroundColor')
    assert paper == ('rgb(13, 17, 23)' if dark else 'rgb(255, 255, 255)')
    ink = browser.js('getComputedStyle(document.querySelector("#ap svg text")).fill')
    assert ink == ('rgb(230, 237, 243)' if dark else 'rgb(31, 35, 40)')


def test_switch_hides_a_model_everywhere(page, browser):
    browser.open(page / 'report.html')
    shown = visible(browser, '.of-m1')
    others = visible(browser, '.of-m0')
    assert shown > 30
    browser.js('document.querySelector("[data-model=\\"1\\"]").focus()')
    browser.press('SPACE')
    assert visible(browser, '.of-m1') == 0
    assert visible(browser, '#before-after-m1-step2') == 0
    assert 0 < visible(browser, '.of-m0') <= others
    browser.press('SPACE')
    assert visible(browser, '.of-m1') == shown
    assert browser.errors() == []


def test_theme_button_cycles_through_light_dark_and_system(page, browser):
    browser.open(page / 'report.html')
    texts, colours = [], []
    for _ in range(3):
        browser.js('document.getElementById("theme").click()')
        texts.append(browser.js('document.getElementById("theme").textContent'))
        colours.append(browser.js('getComputedStyle(document.body).backgroundColor'))
    white, black = 'rgb(255, 255, 255)', 'rgb(13, 17, 23)'
    assert colours == [white, black, white]
    assert texts == [f'Colours: {name}' for name in ('light', 'dark', 'system')]


def test_class_table_sorts_by_keyboard(page, browser):
    browser.open(page / 'report.html')
    column = (
        'Array.from(document.querySelectorAll("#classes-table tbody tr"))'
        '.map(r => Number(r.cells[2].dataset.value))'
    )
    before = browser.js(column)
    browser.js(
        'document.querySelector("#classes-table button[data-column=\\"2\\"]").focus()'
    )
    browser.press('ENTER')
    assert browser.js(column) == sorted(before, reverse=True)
    sort = 'document.querySelector("#classes-table [aria-sort=descending]").textContent'
    assert browser.js(sort).startswith('AP')
    browser.press('ENTER')
    assert browser.js(column) == sorted(before)
    assert browser.errors() == []


@pytest.mark.parametrize('dark', [False, True])
def test_confusion_cells_are_shaded_by_share_and_stay_readable(page, browser, dark):
    browser.open(page / 'report.html', dark=dark)
    assert browser.js('document.querySelectorAll(".confusion").length') == 3
    shades = browser.js(
        'Array.from(document.querySelectorAll(".confusion")[1].rows[1].cells).slice(1)'
        '.map(c => [Number(c.textContent.match(/^\\d+/) || 0),'
        ' Number(getComputedStyle(c, "::before").opacity)])'
    )
    counts, opacity = np.array(shades).T
    np.testing.assert_allclose(opacity, 0.45 * counts / counts.sum(), atol=1e-3)
    assert browser.errors() == []


def test_tab_key_reaches_every_control(page, browser):
    browser.open(page / 'report.html')
    reached = []
    for _ in range(14):
        browser.press('TAB')
        reached.append(
            browser.js(
                'document.activeElement.dataset.model || document.activeElement.'
                'id || document.activeElement.className'
            )
        )
    assert reached[0] == 'skip'
    assert {'0', '1', '2', 'theme', 'scroll'} <= set(reached)


def test_page_template_is_part_of_the_package():
    settings = configparser.ConfigParser()
    settings.read(Path(__file__).resolve().parents[2] / 'setup.cfg')
    data = settings['options.package_data']['mmdet_consistent']
    assert 'analysis/*.html' in data
