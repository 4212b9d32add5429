import pytest

from tests.client import Client


@pytest.mark.parametrize("query", ["q=%FF", "q=%ED%A0%80", "%C3=1", "q=a%C0%80"])
async def test_a_query_string_that_is_not_utf_8_is_a_422(ada: Client, query: str) -> None:
    response = await ada.get(f"/contacts?{query}")

    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert [error["loc"] for error in response.json()["errors"]] == [["query"]]


@pytest.mark.parametrize(
    "path", ["/users/me", "/auth/sessions", "/health/live", "/health/ready", "/contacts/birthdays"]
)
async def test_an_unknown_query_parameter_is_named(ada: Client, path: str) -> None:
    response = await ada.get(f"{path}?verbose=1")

    assert (response.status_code, response.json()["errors"][0]["loc"]) == (422, ["query", "verbose"])


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json", "/assets/docs.js"])
async def test_the_pages_take_any_query(client: Client, path: str) -> None:
    assert (await client.get(f"{path}?verbose=1")).status_code in (200, 307)
