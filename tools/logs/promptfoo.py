"""Write results of promptfoo in three formats: two models, and two prompts that repeat."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.logs.questions import ANSWERS, QUESTIONS, outputs

PROVIDER = """
module.exports = class {
  constructor(options) { this.options = options; }
  id() { return 'made-up:' + this.options.config.model; }
  async callApi(prompt, { vars }) {
    const answers = this.options.config.answers;
    return { output: answers[vars.question] };
  }
};
"""


def main(program: str, folder: Path) -> None:
    """Write results.json, and its other formats, into a folder."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "provider.js").write_text(PROVIDER)
        write_config(work / "even.json", ["{{question}}"], "equals", 6)
        write_config(work / "prompts.json", ["{{question}}", "Yes or no: {{question}}"], "icontains", 2)
        run(program, work, "even.json", folder, ["even_results.json", "even.jsonl", "even.csv"])
        run(program, work, "prompts.json", folder, ["prompts_results.json"], "--repeat", "2")


def write_config(path: Path, prompts: list[str], kind: str, count: int) -> None:
    """A configuration of both models; the first answers are compared without their thoughts."""
    providers = []
    for model in ANSWERS:
        answers = dict(zip((question for question, _unused in QUESTIONS), outputs(model), strict=True))
        fixed = {"model": model, "answers": answers}
        providers.append({"id": "file://provider.js", "label": model, "config": fixed})
    tests = []
    for question, answer in QUESTIONS[:count]:
        tests.append({"vars": {"question": question}, "assert": [{"type": kind, "value": answer}]})
    transform: dict[str, object] = {"options": {"transform": "output.split('</think>').pop().trim()"}}
    config: dict[str, object] = {"description": path.stem, "prompts": prompts, "providers": providers}
    path.write_text(json.dumps({**config, "defaultTest": transform, "tests": tests}))


def run(program: str, work: Path, config: str, folder: Path, files: list[str], *options: str) -> None:
    """Run promptfoo, and copy its files. It exits with 100 if a test failed, as some should."""
    environment = {**os.environ, "PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1"}
    environment["PROMPTFOO_CONFIG_DIR"] = str(work / "promptfoo")
    command = [program, "eval", "-c", config, "--no-cache", "--no-table", *options]
    for name in files:
        command += ["-o", name]
    done = subprocess.run(command, cwd=work, env=environment)
    if done.returncode not in (0, 100):
        sys.exit(done.returncode)
    for name in files:
        shutil.copy(work / name, folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
