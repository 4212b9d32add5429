"""Calls by pages of other origins (CORS)."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from contacts_api.problems import OriginRefused

EXPOSED_HEADERS = ["ETag", "Link", "Location", "Retry-After", "X-Request-ID"]


class CORS(CORSMiddleware):
    """Starlette's, refusing as everything else here does."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        return response if response.status_code == 200 else OriginRefused().response()
