"""Requests that are too large are ended while they come, and not kept."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEGABYTE = 1 << 20
AROUND = MEGABYTE  # bytes of a form around its file
TOO_LARGE = 413


class _TooLarge(Exception):
    """More has come than is allowed."""


class BodyLimit:
    """Middleware that counts what comes."""

    def __init__(self, app: ASGIApp, most: int):
        self.app = app
        self.most = most  # bytes of a file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, as far as it is allowed."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        came = 0
        began = False

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self.most + AROUND:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except _TooLarge:
            if began:
                raise
            text = f"the upload is larger than the {self.most / MEGABYTE:g} MB that are allowed"
            error = {"message": text, "type": "invalid_request_error", "param": "file"}
            await JSONResponse({"error": error}, TOO_LARGE)(scope, receive, send)
