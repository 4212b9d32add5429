from tests.client import Client
from tests.conftest import Execute


async def test_the_start_page_is_the_docs(client: Client) -> None:
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
