import logging
import re

import pytest

from tests.client import Client


@pytest.mark.parametrize(
    "path", ["/contacts", "/health/live", "/docs", "/openapi.json", "/assets/docs.js", "/contacts?limit=0"]
)
async def test_head_is_get_without_the_body(ada: Client, path: str) -> None:
    got, headed = await ada.get(path), await ada.head(path)

    ignored = {"x-request-id", "date"}
    assert headed.status_code == got.status_code
    assert headed.content == b""
    assert {k: v for k, v in headed.headers.items() if k not in ignored} == {
        k: v for k, v in got.headers.items() if k not in ignored
    }


@pytest.mark.parametrize(
    ("sent", "is_kept"), [("abc-123_X.y", True), ("x" * 65, False), ("a b", False), ("a\tb", False)]
)
async def test_every_answer_and_its_log_line_have_a_request_id(
    client: Client, caplog: pytest.LogCaptureFixture, sent: str, is_kept: bool
) -> None:
    with caplog.at_level(logging.INFO, "contacts_api.access"):
        response = await client.get("/nothing?q=secret", headers={"X-Request-ID": sent})

    request_id = response.headers["x-request-id"]
    assert (request_id == sent) == is_kept
    (line,) = [record.getMessage() for record in caplog.records if record.name == "contacts_api.access"]
    assert re.fullmatch(rf"GET /nothing 404 [0-9.]+ms {re.escape(request_id)}", line)
