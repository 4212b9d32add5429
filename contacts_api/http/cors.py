"""CORS: calls from pages of other origins."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from contacts_api.problems import OriginRefused

EXPOSED_HEADERS = ["Content-Disposition", "ETag", "Link", "Location", "Retry-After", "X-Request-ID"]


class CORS(CORSMiddleware):
    """Starlette's middleware for the given origins. Rejects preflight requests with a problem response."""

    def __init__(self, app: ASGIApp, origins: list[str], root_path: str) -> None:
        self._root_path = root_path
        super().__init__(
            app, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=EXPOSED_HEADERS
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        return response if response.status_code == 200 else OriginRefused().response(self._root_path)
