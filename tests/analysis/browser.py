"""A headless Chromium, driven through its DevTools pipe. No package needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')


def find_browser() -> Optional[str]:
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page in a browser of its own, gone after the ``with`` block.

    Messages are JSON ended by a NUL byte: commands on file descriptor 3 of the
    browser, answers and events on 4.
    """

    def __init__(self, path: str) -> None:
        self.profile = tempfile.mkdtemp()
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The browser wants these very numbers, which may be taken here.
        shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        flags = '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run '
        flags += '--disable-background-networking --disable-component-update '
        flags += '--disable-sync --hide-scrollbars --remote-debugging-pipe'
        self.process = subprocess.Popen(
            [
                'bash',
                '-c',
                shell,
                path,
                *flags.split(),
                f'--user-data-dir={self.profile}',
            ],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.events: list[dict] = []
        self._buffer = b''
        self._last_id = 0
        self._session: Optional[str] = None
        target = self('Target.createTarget', url='about:blank')['targetId']
        attached = self('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self(f'{domain}.enable')

    def __enter__(self) -> 'Browser':
        return self

    def __exit__(self, *exc_info: Any) -> None:
        os.close(self._write)
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._read)
        shutil.rmtree(self.profile, ignore_errors=True)

    def __call__(self, method: str, **params: Any) -> dict:
        """Send a command, keep events that come meanwhile, return its answer."""
        self._last_id += 1
        message: dict[str, Any] = dict(id=self._last_id, method=method, params=params)
        if self._session:
            message['sessionId'] = self._session
        os.write(self._write, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._next()
            if answer.get('id') == self._last_id:
                assert 'error' not in answer, (method, answer['error'])
                return answer['result']
            self.events.append(answer)

    def _next(self) -> dict:
        while b'\0' not in self._buffer:
            assert select.select([self._read], [], [], 60)[0], 'the browser hangs'
            data = os.read(self._read, 1 << 20)
            assert data, 'the browser went away'
            self._buffer += data
        message, self._buffer = self._buffer.split(b'\0', 1)
        return json.loads(message)

    def open(self, page: Path, width: int = 1280, dark: bool = False) -> None:
        self(
            'Emulation.setDeviceMetricsOverride',
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = dict(name='prefers-color-scheme', value='dark' if dark else 'light')
        self('Emulation.setEmulatedMedia', features=[scheme])
        self('Page.navigate', url=page.resolve().as_uri())
        deadline = time.monotonic() + 60
        while self.js('document.readyState') != 'complete':
            assert time.monotonic() < deadline, 'the page did not load'
            time.sleep(0.05)

    def js(self, expression: str) -> Any:
        answer = self('Runtime.evaluate', expression=expression, returnByValue=True)
        assert 'exceptionDetails' not in answer, answer['exceptionDetails']
        return answer['result'].get('value')

    def press(self, key: str, code: int) -> None:
        for kind in ('keyDown', 'keyUp'):
            text = {'text': '\r'} if key == 'Enter' and kind == 'keyDown' else {}
            text = {'text': ' '} if key == ' ' and kind == 'keyDown' else text
            self(
                'Input.dispatchKeyEvent',
                type=kind,
                key=key,
                code={' ': 'Space'}.get(key, key),
                windowsVirtualKeyCode=code,
                **text,
            )

    def errors(self) -> list[str]:
        """What the console shows: exceptions, errors, warnings."""
        kinds = (
            'Runtime.exceptionThrown',
            'Log.entryAdded',
            'Runtime.consoleAPICalled',
        )
        return [json.dumps(e) for e in self.events if e.get('method') in kinds]

    def requests(self) -> list[str]:
        """Addresses that were asked for, other than data and the page itself."""
        sent = [
            e for e in self.events if e.get('method') == 'Network.requestWillBeSent'
        ]
        urls = [e['params']['request']['url'] for e in sent]
        return [u for u in urls if not u.startswith(('data:', 'file:', 'about:'))]

    def screenshot(self, path: Path, whole: bool = True) -> None:
        data = self('Page.captureScreenshot', captureBeyondViewport=whole)['data']
        path.write_bytes(base64.b64decode(data))
