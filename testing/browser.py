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
    deadline = threading.Timer(500, stop)
    deadline.start()
    assert browser.stdout is not None
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
    assert lines and lines[-1].endswith("</html>\n"), "the browser printed no whole page"
    return "".join(lines)


def answered(page: str, script: str, folder: Path, *flags: str, time: str = VIRTUAL_TIME) -> Any:
    """What a script returns that runs on the page after the page's own script."""
    return told(open_page(with_script(page, telling(script)), folder, *flags, time=time))


def in_frame(page: str, script: str, folder: Path) -> Any:
    """What a script returns that runs on the page, once it is loaded, in a frame of a phone's size."""
    program = f"addEventListener('load', () => {{ {telling(script)} }});"
    (folder / "inner.html").write_text(with_script(page, program), encoding="utf-8")
    phone = "<body><iframe src=inner.html style='width:390px;height:800px;border:0'></iframe></body>"
    return told(open_page(phone, folder, "--allow-file-access-from-files"))


def telling(script: str) -> str:
    """A program that writes what a script returns into the window's page."""
    return (
        "const told = top.document.createElement('pre'); told.id = 'told';"
        f"told.textContent = JSON.stringify((() => {{ {script} }})()); top.document.body.append(told);"
    )


def told(dom: str) -> Any:
    """What a program of `telling` has written."""
    return json.loads(html.unescape(re.findall(r'<pre id="told">(.*?)</pre>', dom, re.S)[0]))
