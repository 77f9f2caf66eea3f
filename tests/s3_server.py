"""An S3 on this machine for tests: moto behind a server that counts requests and can fail."""

import contextlib
import functools
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from typing import Any
from urllib.parse import unquote

import pytest

from tests.serving import serving as answered

KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "our"
OWN_KEY = "test"  # of the requests of `put`
Start = Callable[..., Any]


class Store:
    """A bucket `our`. `requests` are (method, key, first byte, bytes asked for), without those of `put`.

    `before` is called with each of them before it is answered. It may return a status: the answer is an error
    then.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.requests: list[tuple[str, str, int, int]] = []
        self._sizes: dict[str, int] = {}
        self.before: Callable[[str, str], int | None] = lambda _method, _key: None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.env = {**KEYS, "AWS_ENDPOINT_URL": self.url}

    def put(self, key: str, content: bytes) -> str:
        """Write an object; its address."""
        self._sizes[key] = len(content)
        self._client.put_object(Bucket=BUCKET, Key=key, Body=content)
        return f"s3://{BUCKET}/{key}"

    @cached_property
    def _client(self) -> Any:
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=OWN_KEY,
            aws_secret_access_key="secret",
            region_name=KEYS["AWS_DEFAULT_REGION"],
        )
        client.create_bucket(Bucket=BUCKET)
        return client

    def bytes_sent(self, key: str) -> int:
        """How many bytes of an object were sent."""
        spans = [
            (first, size) for method, each, first, size in self.requests if (method, each) == ("GET", key)
        ]
        return sum(min(size, self._sizes[key] - first) for first, size in spans)

    def _answer(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        is_own = f"Credential={OWN_KEY}/" in environ.get("HTTP_AUTHORIZATION", "")
        if not is_own:
            method, key = environ["REQUEST_METHOD"], unquote(environ["PATH_INFO"]).removeprefix(f"/{BUCKET}/")
            span = re.fullmatch(r"bytes=(\d+)-(\d+)", environ.get("HTTP_RANGE", ""))
            first, last = (int(span[1]), int(span[2])) if span else (0, -1)
            self.requests.append((method, key, first, last + 1 - first))
            status = self.before(method, key)
            if status:
                start(f"{status} Refused", [("Content-Length", "0")])
                return [b""]
        answer: Iterable[bytes] = self._moto(environ, start)
        return answer


@contextlib.contextmanager
def serving() -> Iterator[Store]:
    """A store that answers while the block runs. Its clients share what botocore reads from its own files."""
    from botocore.loaders import JSONFileLoader

    read_once = functools.cache(partial(JSONFileLoader.load_file, JSONFileLoader()))
    store = Store()
    with pytest.MonkeyPatch.context() as patch, answered(store.server):
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: read_once(path))
        yield store
