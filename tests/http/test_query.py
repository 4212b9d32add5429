from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from contacts_api.http.errors import add_error_handlers
from contacts_api.http.query import QueryParameters
from contacts_api.http.route import Route
from contacts_api.problems import Unauthorized
from tests.client import Client
from tests.conftest import client_of


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


@pytest.mark.parametrize("query", ["q=a&q=b", "limit=1&limit=1", "sort=name&q=a&sort=name"])
async def test_a_repeated_query_parameter_is_refused(ada: Client, query: str) -> None:
    (error,) = (await ada.get(f"/contacts?{query}")).json()["errors"]

    assert (error["loc"], error["code"]) == (["query", query.partition("=")[0]], "repeated")


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json", "/assets/docs.js"])
async def test_pages_accept_any_query(client: Client, path: str) -> None:
    assert (await client.get(f"{path}?verbose=1")).status_code in (200, 307)


class ShelfQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    shelf: Annotated[int, Field(ge=1, description="Which one.")]


async def find_shelf(query: Annotated[ShelfQuery, Depends(QueryParameters(ShelfQuery))]) -> int:
    return query.shelf


async def refuse(request: Request) -> None:
    if "let-in" not in request.headers:
        raise Unauthorized


@pytest.fixture
def shelves() -> FastAPI:
    """An app with one route and a dependency that reads the query."""
    router = APIRouter(route_class=Route)

    @router.get("/shelves")
    async def get_shelf(
        shelf: Annotated[int, Depends(find_shelf)], who: Annotated[None, Depends(refuse)], request: Request
    ) -> list[str]:
        return [str(shelf), request.url.query]

    app = FastAPI()
    app.router.routes += router.routes
    add_error_handlers(app)
    return app


async def test_a_dependency_can_read_the_query_and_the_endpoint_the_request(shelves: FastAPI) -> None:
    async with client_of(shelves) as client:
        response = await client.get("/shelves?shelf=3", headers={"let-in": "1"})

    assert response.json() == ["3", "shelf=3"]
    (parameter,) = shelves.openapi()["paths"]["/shelves"]["get"]["parameters"]
    assert (parameter["name"], parameter["required"], parameter["description"]) == ("shelf", True, "Which one.")


@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"let-in": "1"}, 422)])
async def test_authentication_comes_before_validation_of_the_query(
    shelves: FastAPI, headers: dict[str, str], status: int
) -> None:
    async with client_of(shelves) as client:
        response = await client.get("/shelves?shelf=0&x=1", headers=headers)

    assert response.status_code == status
