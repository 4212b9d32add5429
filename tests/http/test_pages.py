from collections.abc import Callable
from typing import TypeAlias

import pytest

from contacts_api.app import create_app
from contacts_api.http.field_errors import CODES
from contacts_api.problems import Problem, all_problems
from contacts_api.settings import Settings
from tests.client import Client
from tests.conftest import Execute, client_of

MakeSettings: TypeAlias = Callable[..., Settings]


async def test_the_start_page_redirects_to_the_docs(client: Client) -> None:
    response = await client.get("/")

    assert (response.status_code, response.headers["location"]) == (307, "/docs")


async def test_ready_means_that_the_schema_is_current(client: Client, execute: Execute) -> None:
    before = await client.get("/health/ready")
    ((revision,),) = execute("SELECT version_num FROM alembic_version")
    execute("UPDATE alembic_version SET version_num = 'older'")
    after = await client.get("/health/ready")
    execute("UPDATE alembic_version SET version_num = %s", revision)

    assert (before.status_code, before.json()) == (200, {"status": "ok"})
    assert (after.status_code, after.json()["code"]) == (503, "schema_outdated")
    assert "retry-after" in after.headers


async def test_the_catalogue_explains_every_problem(client: Client) -> None:
    page = await client.get("/docs/errors")

    for problem in all_problems():
        assert page.text.count(f'id="{problem.code}"') == 1
    for code in CODES:
        assert f"<dt><code>{code}</code></dt>" in page.text
    assert "<script" not in page.text
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


@pytest.mark.parametrize("problem", all_problems(), ids=lambda problem: problem.__name__)
def test_every_problem_has_a_docstring_and_advice(problem: type[Problem]) -> None:
    if "code" in vars(problem):
        assert vars(problem).get("__doc__"), "its docstring says when it comes"
    assert problem.advice


async def test_the_type_of_a_problem_links_to_the_catalogue(make_settings: MakeSettings) -> None:
    async with client_of(create_app(make_settings(root_path="/api"))) as client:
        answer = await client.get("/api/nowhere")
        page = await client.get(answer.json()["type"])

    assert answer.json()["type"] == "/api/docs/errors#not_found"
    assert 'id="not_found"' in page.text


async def test_assets_are_compressed_and_cacheable(client: Client) -> None:
    compressed = await client.get("/assets/swagger-ui-bundle.js")
    plain = await client.get("/assets/swagger-ui-bundle.js", headers={"Accept-Encoding": "identity"})
    again = await client.get("/assets/swagger-ui-bundle.js", headers={"If-None-Match": compressed.headers["etag"]})

    assert compressed.headers["content-encoding"] == "gzip"
    assert compressed.content == plain.content
    assert int(compressed.headers["content-length"]) < len(plain.content) / 3
    assert again.status_code == 304
    assert compressed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
