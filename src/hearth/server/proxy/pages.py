"""The few pages that are hearth's own where everybody looks: a machine wakes, or cannot answer. They load nothing."""

from __future__ import annotations

from html import escape

from starlette.responses import HTMLResponse, PlainTextResponse, Response

REFRESH_S = 1
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;display:grid;place-items:center;min-height:90vh;margin:0;"
    "background:#fbfaf8;color:#2b2622}main{text-align:center}p{color:#7a6f66}"
    "i{display:block;width:3rem;height:3rem;margin:0 auto 1rem;border:.3rem solid #eadfd3;border-top-color:#d9662b;"
    "border-radius:50%;animation:t 1s linear infinite}@keyframes t{to{transform:rotate(1turn)}}"
    "@media(prefers-color-scheme:dark){body{background:#1b1917;color:#efe9e3}p{color:#a59a90}}"
    "@media(prefers-reduced-motion:reduce){i{animation:none}}"
)
_SAFE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "no-referrer",
}


def waiting_page(alias: str) -> Response:
    """Give what a browser shows while a machine wakes; it asks again by itself."""
    body = f"<i></i><h1>Waking {escape(alias)}</h1><p>It was asleep. This page goes on by itself.</p>"
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_S}">'
    headers = {**_SAFE, "Retry-After": str(REFRESH_S)}
    return HTMLResponse(_page(f"Waking {escape(alias)}", body, refresh), status_code=503, headers=headers)


def failure_page(status: int, brief: str, *, retry_after_s: int | None = None) -> Response:
    """Give what a browser shows when there is nothing to show."""
    refresh = f'<meta http-equiv="refresh" content="{retry_after_s}">' if retry_after_s else ""
    body = f"<h1>{status}</h1><p>{escape(brief)}</p>"
    return HTMLResponse(_page(escape(brief), body, refresh), status_code=status, headers=_headers(retry_after_s))


def plain_failure(status: int, brief: str, *, retry_after_s: int | None = None) -> Response:
    """Give the same for programs."""
    return PlainTextResponse(f"{brief}\n", status_code=status, headers=_headers(retry_after_s))


def _headers(retry_after_s: int | None) -> dict[str, str]:
    return _SAFE if retry_after_s is None else {**_SAFE, "Retry-After": str(retry_after_s)}


def _page(title: str, body: str, head: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{head}'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>"
    )
