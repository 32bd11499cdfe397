"""A headless Chromium for tests of pages, driven by selenium."""

import json
import shutil
from pathlib import Path

import pytest

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
FLAGS = (
    '--headless',
    '--no-sandbox',
    '--hide-scrollbars',
    '--disable-gpu',
    '--disable-quic',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-first-run',
)


class Browser:
    """One page in a browser of its own.

    Args:
        program: Path of the browser.
        driver: Path of chromedriver.
        profile: Empty folder for the browser's profile.
    """

    def __init__(self, program, driver, profile):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = program
        for flag in (*FLAGS, f'--user-data-dir={profile}'):
            options.add_argument(flag)
        options.set_capability(
            'goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'}
        )
        # With the driver's path selenium does not try to download one.
        service = webdriver.ChromeService(executable_path=driver)
        self.driver = webdriver.Chrome(options, service)

    def open(self, page, width=1280, dark=False):
        """Open a file in a window of that width, and forget what was logged before."""
        self.errors(), self.requests()
        command = self.driver.execute_cdp_cmd
        size = dict(width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        command('Emulation.setDeviceMetricsOverride', size)
        scheme = dict(name='prefers-color-scheme', value='dark' if dark else 'light')
        command('Emulation.setEmulatedMedia', dict(features=[scheme]))
        self.driver.get(Path(page).resolve().as_uri())

    def js(self, expression):
        """Return the value of a JavaScript expression."""
        return self.driver.execute_script(f'return {expression}')

    def press(self, key):
        """Press a key, by its name in :class:`selenium.webdriver.Keys`."""
        from selenium.webdriver import ActionChains, Keys

        ActionChains(self.driver).send_keys(getattr(Keys, key)).perform()

    def errors(self):
        """Return what the console has shown since the last call."""
        return self.driver.get_log('browser')

    def requests(self):
        """Return addresses requested from a network since the last call."""
        logged = self.driver.get_log('performance')
        events = [json.loads(entry['message'])['message'] for entry in logged]
        urls = [
            event['params']['request']['url']
            for event in events
            if event['method'] == 'Network.requestWillBeSent'
        ]
        local = ('data:', 'file:', 'chrome:')
        return [url for url in urls if not url.startswith(local)]


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """A :class:`Browser`; the test is skipped where a part of it is missing."""
    pytest.importorskip('selenium', reason='selenium is not installed')
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which('chromedriver')
    if not program or not driver:
        pytest.skip(
            'no chromium or no chromedriver on PATH; on Debian and Ubuntu: '
            'apt-get install chromium chromium-driver'
        )
    opened = Browser(program, driver, tmp_path_factory.mktemp('profile'))
    yield opened
    opened.driver.quit()
