from collections.abc import Callable

from contacts_api.app import create_app
from contacts_api.settings import Settings
from tests.client import Client
from tests.conftest import client_of


async def test_only_listed_origins_are_allowed(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(cors_origins=["https://app.example.com"]))

    async with app.router.lifespan_context(app), client_of(app) as client:
        ours = await client.get("/contacts", headers={"Origin": "https://app.example.com"})
        others = await client.get("/contacts", headers={"Origin": "https://evil.example.com"})
        preflight = {
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization,if-match",
        }
        asked = await client.options("/contacts", headers={"Origin": "https://app.example.com", **preflight})
        refused = await client.options("/contacts", headers={"Origin": "https://evil.example.com", **preflight})

    assert ours.headers["access-control-allow-origin"] == "https://app.example.com"
    for header in ("Content-Disposition", "ETag", "Link", "Location", "Retry-After"):
        assert header in ours.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in others.headers
    assert asked.status_code == 200
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")


async def test_errors_outside_the_routes_have_cors_headers_too(make_settings: Callable[..., Settings]) -> None:
    app = create_app(make_settings(cors_origins=["https://app.example.com"]))

    @app.get("/fails")
    async def fail() -> None:
        raise RuntimeError

    async with app.router.lifespan_context(app), client_of(app) as client:
        answers = [
            await client.get(path, headers={"Origin": "https://app.example.com"})
            for path in ("/contacts?q=%FF", "/fails", "/nothing")
        ]

    assert [answer.status_code for answer in answers] == [422, 500, 404]
    assert {answer.headers["access-control-allow-origin"] for answer in answers} == {"https://app.example.com"}
    assert all("x-request-id" in answer.headers for answer in answers)


async def test_no_origin_is_allowed_by_default(client: Client) -> None:
    response = await client.get("/contacts", headers={"Origin": "https://app.example.com"})

    assert "access-control-allow-origin" not in response.headers
