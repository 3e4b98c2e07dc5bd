"""Serves the documentation page /docs: Swagger UI over /openapi.json, from local files.

FastAPI's own page loads its script from another host. That script could read the API key that a
user types into the page. Here a Content-Security-Policy forbids the browser every other host.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from fastapi import APIRouter, Request
from fastapi.exceptions import HTTPException
from starlette.responses import Response

from exporter.api.openapi import error_answers

router = APIRouter(include_in_schema=False)

PACKAGE = "fastapi_swagger.resources"
"""Package with Swagger UI's release files; version 5, as version 4 cannot read OpenAPI 3.1."""
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self';"
        " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of the page. Images may be `data:` URLs, as Swagger UI's icons are."""

# All URLs are relative, so that the page also works behind a proxy that adds a path prefix.
PAGE = b"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>exporter</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="stylesheet" href="docs/page.css">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/page.js"></script>
</body>
</html>
"""
# Without `validatorUrl: null`, Swagger UI sends the document to its makers' host for validation.
# API keys are not kept, because the browser's storage outlives the visit.
SCRIPT = b"""\
SwaggerUIBundle({
  url: "docs/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: false,
  validatorUrl: null,
});
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
"""
# No operation has links, and their column makes the page wider than a phone. The address under the
# title is that of the shortened document, and the only server is that of the page.
STYLE = b"""\
html { color-scheme: light dark; }
html.dark-mode { background: #1c2022; }
html.dark-mode .swagger-ui table.headers td { color: #e4e6e6; }
.swagger-ui .response-col_links { display: none; }
.swagger-ui .info hgroup > a { display: none; }
.swagger-ui .schemes-server-container { visibility: hidden; }
@media (max-width: 600px) {
  .swagger-ui .wrapper { padding: 0 8px; }
  .swagger-ui .responses-inner, .swagger-ui .opblock-description-wrapper { padding: 10px; }
  .swagger-ui .response-col_status { min-width: 0; width: 5em; }
  .swagger-ui .responses-table { table-layout: fixed; }
}
"""
TYPES = {
    "page.js": "text/javascript",
    "page.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


@router.get("/docs")
async def page() -> Response:
    """Answers with the documentation page."""
    return Response(PAGE, media_type="text/html", headers=SECURITY)


@router.get("/docs/openapi.json")
def folded(request: Request) -> Response:
    """Answers with the document as the page shows it: all errors of an operation as one answer."""
    app = request.app
    if not hasattr(app.state, "folded_document"):
        app.state.folded_document = json.dumps(error_answers.fold(app.openapi())).encode()
    return Response(app.state.folded_document, media_type="application/json")


@router.get("/docs/{name}")
def asset(name: str) -> Response:
    """Answers with a file that the page loads. Raises HTTPException 404 for any other name."""
    if name not in TYPES:
        raise HTTPException(404)
    headers = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Response(_read(name), media_type=TYPES[name], headers=headers)


@cache
def _read(name: str) -> bytes:
    own = {"page.js": SCRIPT, "page.css": STYLE}
    return own[name] if name in own else (resources.files(PACKAGE) / name).read_bytes()
