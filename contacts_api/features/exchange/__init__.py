"""Import and export contacts as CSV and vCards, and change them in batches."""

from contacts_api.features import Feature
from contacts_api.features.exchange.models import REMARKS
from contacts_api.features.exchange.routes import batches, exchange, uploads
from contacts_api.http.pages import CodeList

REMARKS_OF_IMPORTS = CodeList(
    "Remarks of an import",
    "The report of an import has `errors`, rows in which there is no person, and `warnings`. Each has a `code`:",
    REMARKS,
)
FEATURE = Feature(name="exchange", routers=[batches, exchange, uploads], code_lists=[REMARKS_OF_IMPORTS])
