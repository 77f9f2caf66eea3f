"""`eval prove` of a base and two adapters with stand-ins of servers."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import jsonschema_rs
import numpy as np

from tests.cli.scoring import call
from tests.conftest import ROOT
from tests.json_files import read_json, write_json
from tests.label_server import Answer, started
from tests.messages import raises
from tests.model_server import ServedStandIn
from tuneyard.core.errors import ContentError
from tuneyard.eval.models.load import Model
from tuneyard.eval.prove.__main__ import cli

VALID = jsonschema_rs.validator_for(read_json(ROOT / "core/schemas/prove.json"))
ROWS = [
    {"instruction": f'Does "{number} men walk" imply "it is so"?', "output": ("yes", "no")[number % 2]}
    for number in range(2)
]
LENGTH = 5


@dataclass
class Home:
    """A base whose first answer ends after two tokens, two adapters, their models, and started servers."""

    folder: Path
    base: Path
    adapters: dict[str, Path]
    models: dict[str, Model]
    stack: ExitStack
    servers: list[ServedStandIn] = field(default_factory=list)

    def serve(self, kind: str, *names: str) -> str:
        """Start a server of these models; its address."""
        self.servers.append(ServedStandIn(kind, {name: self.models[name] for name in names}))
        return self.stack.enter_context(started(self.servers[-1]))

    def prove(self, *words: str, names: tuple[str, ...] = ("one",), code: int = 0) -> Answer:
        """Run the command with some adapters; prove.json."""
        out = self.folder / "proof"
        command = ["--model", self.base, "--data", self.folder / "rows.json", "--out", out]
        for name in names:
            command += ["--adapter", f"{name}={self.adapters[name]}"]
        command += ["--max-new-tokens", LENGTH, "--timeout", "20", *words]
        if code:
            with raises(ContentError, "prove.md"):
                call(cli, *command)
        else:
            call(cli, *command)
        proof = read_json(out / "prove.json")
        VALID.validate(proof)
        assert proof["proved"] == (code == 0)
        return proof


def end_the_first_answer(home: Home) -> None:
    """Make the third token of the adapter's first answer an end token of the base."""
    server = ServedStandIn("vllm", {"one": home.models["one"]})
    server.current.name = "one"
    ids = server.tokenize(server.render([{"role": "user", "content": ROWS[0]["instruction"]}]))
    for _ in range(3):
        ids.append(int(np.argmax(server.last_logs(ids))))
    config_file = home.base / "generation_config.json"
    config = read_json(config_file) if config_file.exists() else {}
    config["eos_token_id"] = [ids[-1]]
    write_json(config_file, config)
    for model in home.models.values():
        model.net.generation_config.eos_token_id += [ids[-1]]
