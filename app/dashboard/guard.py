"""What protects the panel's pages in a browser: who may post, what a page may load, and the session's cookie.

Knows no session; the cookie's value means nothing here.
"""

from starlette.requests import Request
from starlette.responses import Response

from app.errors import Forbidden, Unparsable

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: a form would then be posted with the origin `null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
SAFE = frozenset({"GET", "HEAD"})


def protect(response: Response) -> None:
    """Put the headers of every page on an answer; a page is nobody else's, and gone from the cache after sign-out."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "private, no-store")
    if "vary" not in response.headers:
        response.headers["Vary"] = "Cookie, Accept"


def refuse_foreign(request: Request) -> None:
    """Refuse a write that did not come from a page of this very origin.

    Browsers say where a request comes from: in `Sec-Fetch-Site`, which no script can set, else in `Origin`.

    Raises:
        Forbidden: it came from elsewhere, or does not say.
    """
    if request.method in SAFE:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin", "")
    _, _, host = origin.partition("://")
    if site == "same-origin" or (site is None and host and host == request.headers.get("host")):
        return
    raise Forbidden(
        "the form was not sent from a page of this server",
        code="foreign_origin",
        remedy="open the page here and send it again; programs use /v1 with `Authorization: Bearer KEY`",
    )


async def refuse_nul(request: Request) -> None:
    """Refuse a form that holds the character NUL, which cannot be stored; `app.edge` sees to other bodies.

    Raises:
        Unparsable: it holds one.
    """
    form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    if form and b"%00" in await request.body():
        raise Unparsable("the form holds the character NUL, which cannot be stored", remedy="leave it out")


def over_tls(request: Request) -> bool:
    """Whether the browser's connection is encrypted, here or at the proxy before this server."""
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto", "").strip().lower() == "https"


def origin(request: Request) -> str:
    """Where the browser has this server, for an address that somebody else is to open."""
    return f"{'https' if over_tls(request) else 'http'}://{request.headers.get('host', request.url.netloc)}"


def cookie_name(request: Request) -> str:
    """The session cookie's name; under TLS with the prefix that ties it to this host and to TLS."""
    return "__Host-fiftytwo" if over_tls(request) else "fiftytwo"


def rater_cookie(request: Request) -> str:
    """The name of a rater's cookie, which goes to the page of the one experiment alone."""
    return "__Secure-fiftytwo-rater" if over_tls(request) else "fiftytwo-rater"


def give_cookie(
    request: Request, response: Response, token: str, hours: float, name: str | None = None, path: str = "/"
) -> None:
    """Set the session's cookie; with a name and a path of its own it is a rater's."""
    response.set_cookie(
        name or cookie_name(request),
        token,
        max_age=int(hours * 3600),
        path=path,
        secure=over_tls(request),
        httponly=True,
        samesite="strict",
    )


def take_cookie(request: Request, response: Response) -> None:
    """Delete the session's cookie."""
    response.delete_cookie(cookie_name(request), path="/", secure=over_tls(request), httponly=True, samesite="strict")


def own_path(path: str | None) -> str:
    """The path, if it lies on this server for certain, else the panel's first page."""
    if path and path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable():
        return path
    return "/jobs"
