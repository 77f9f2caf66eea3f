"""A page of ours in a real browser, from file://."""

import contextlib
import functools
import html
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic",
]  # fmt: skip


VIRTUAL_TIME = "--virtual-time-budget=3000"
"""Ends when timers of three seconds have run, at once. The page's clock is not real then."""


def with_script(page: str, script: str) -> str:
    """The page with one more script at its end, and a policy that lets it run."""
    page = re.sub("script-src 'sha256-[^']*'", "script-src 'unsafe-inline'", page, count=1)
    return page.replace("</body>", f"<script>{script}</script></body>")


def open_page(page: str, folder: Path, *flags: str, fragment: str = "", time: str = VIRTUAL_TIME) -> str:
    """The DOM of a page after its scripts have run, on the page's real clock if `time` is "".

    The browser is stopped once it has printed the DOM: after a download it sometimes does not end by itself.
    """
    (folder / "page.html").write_text(page, encoding="utf-8")
    command = [
        str(BROWSER), *FLAGS, *time.split(), *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom",
        (folder / "page.html").as_uri() + fragment,
    ]  # fmt: skip
    browser = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", start_new_session=True
    )
    stop = functools.partial(os.killpg, browser.pid, signal.SIGKILL)
    deadline = threading.Timer(120, stop)
    deadline.start()
    lines = []
    for line in browser.stdout:
        lines.append(line)
        if line.endswith("</html>\n"):
            break
    deadline.cancel()
    with contextlib.suppress(ProcessLookupError):
        stop()
    browser.wait()
    browser.stdout.close()
    assert lines and lines[-1].endswith("</html>\n"), "the browser printed no whole page in two minutes"
    return "".join(lines)


def answered(page: str, script: str, folder: Path, *flags: str, time: str = VIRTUAL_TIME) -> Any:
    """What a script returns that runs on the page after the page's own script."""
    program = (
        "const told = document.createElement('pre'); told.id = 'told';"
        f"told.textContent = JSON.stringify((() => {{ {script} }})()); document.body.append(told);"
    )
    dom = open_page(with_script(page, program), folder, *flags, time=time)
    return json.loads(html.unescape(re.findall(r'<pre id="told">(.*?)</pre>', dom, re.S)[0]))
