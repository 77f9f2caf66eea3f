"""The report in a real browser, from file://: filters, search and pages, and what hostile text does."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from eval.report import render
from eval.reports.compared import compare_results
from tests.fake_runs import demo

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic", "--virtual-time-budget=3000",
]  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium here")]
STEPS = """
const seen = [];
const questions = () => [...list.querySelectorAll(".question")].map((question) => question.textContent);
const look = () => seen.push([count.textContent, questions()]);
const choose = (values) => {
  form.reset();
  Object.entries(values).forEach(([name, value]) => { form.elements[name].value = value; });
  form.dispatchEvent(new Event("input"));
  look();
};
look();
document.getElementById("next").click();
look();
choose({set: "1"});
choose({set: "1", model: "3"});
choose({model: "2", expected: "maybe", predicted: "no"});
choose({agree: "agree"});
choose({text: "QUESTION 17"});
const result = document.createElement("pre");
result.id = "seen";
result.textContent = JSON.stringify(seen);
document.body.append(result);
"""


def open_page(page: str, folder: Path) -> str:
    """Return the DOM of a page after its scripts have run."""
    (folder / "report.html").write_text(page, encoding="utf-8")
    done = subprocess.run(
        [str(BROWSER), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom",
         (folder / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def test_filters_search_and_pages(tmp_path: Path) -> None:
    demo(tmp_path / "runs")
    page = render(compare_results([str(tmp_path / "runs")]), "x", 2000)
    rows = json.loads(re.findall(r'id="data">(.*?)</script>', page, re.S)[0])["rows"]
    dom = open_page(page.replace("</body>", f"<script>{STEPS}</script></body>"), tmp_path)
    seen = json.loads(html.unescape(re.findall(r'<pre id="seen">(.*?)</pre>', dom, re.S)[0]))

    def those(**wanted: object) -> int:
        return sum(
            ("set" not in wanted or row["set"] == wanted["set"])
            and any(
                not answer["right"] and wanted.get("model") in (None, answer["model"])
                and wanted.get("predicted") in (None, answer["predicted"])
                for answer in row["answers"]
            )
            and wanted.get("expected") in (None, row["expected"])
            and ("same" not in wanted or len({a["predicted"] for a in row["answers"]}) == 1)
            and str(wanted.get("text", "")) in row["question"]
            for row in rows
        )  # fmt: skip

    expected = [
        len(rows), len(rows), those(set=1), those(set=1, model=3),
        those(model=2, expected="maybe", predicted="no"), those(same=True), those(text="question 17"),
    ]  # fmt: skip
    assert [int(text.split()[0]) for text, _ in seen] == expected
    assert expected[3] == 0 and 0 < expected[4] < expected[2] < len(rows)  # rte has all of its set right
    assert seen[0][0] == f"{len(rows)} of {len(rows)} examples, page 1 of {-(-len(rows) // 25)}"
    assert seen[1][0].endswith(f"page 2 of {-(-len(rows) // 25)}")
    assert len(seen[0][1]) == len(seen[1][1]) == 25 and not set(seen[0][1][:1]) & set(seen[1][1])
    assert all("question 17" in question for question in seen[6][1]) and seen[6][1]


def test_hostile_answers_do_nothing(tmp_path: Path) -> None:
    run = "document.title='run'"
    hostile = f'<!-- <script </script><img src=x onerror="{run}"><script>{run}</script>'
    rows = [{"id": n, "gold": "a", "prediction": hostile, "prompt": hostile} for n in range(3)]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dom = open_page(render(compare_results([str(path)]), hostile, 9), tmp_path)
    assert dom.count("✗ incorrect: <bdi>&lt;!-- &lt;script &lt;/script&gt;&lt;img") == 3
    assert "<title>&lt;!-- &lt;script &lt;/script&gt;" in dom and "<img src=" not in dom.replace(
        '<img alt="Plot', ""
    )
