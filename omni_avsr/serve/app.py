"""The HTTP side of the server: OpenAI's transcription API, and what tells how the server is."""

import asyncio
import hmac
import json
import os
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from sse_starlette.sse import EventSourceResponse
from starlette.background import BackgroundTask
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection

from omni_avsr.data.workers import usable_cores
from omni_avsr.decode.live import Live
from omni_avsr.decode.remote import EngineError
from omni_avsr.decode.subtitles import cues, written
from omni_avsr.decode.transcribe import Transcriber
from omni_avsr.decode.transcripts import SUBTITLES, Segment, Transcript, as_verbose
from omni_avsr.errors import InputError
from omni_avsr.serve.asked import Asked, Refused, described
from omni_avsr.serve.engine import Engine
from omni_avsr.serve.failures import told_of
from omni_avsr.serve.limits import MEGABYTE, BodyLimit
from omni_avsr.serve.metrics import Metrics
from omni_avsr.serve.noises import NOISES, as_wav
from omni_avsr.serve.realtime import converse
from omni_avsr.serve.work import Work
from omni_avsr.settings.serve import ServeSettings
from omni_avsr.tasks import VERSION, Row

FOLDER = Path(__file__).parent
CLIPS = sorted(file.name for file in (FOLDER / "clips").iterdir())
LATE = "the request took longer than the server allows"
RETRY_AFTER = "5"  # seconds
WATCHED_EVERY = 0.5  # seconds between looking whether a client has gone
UNKNOWN_KEY, NOT_FOUND, GONE, BAD_GATEWAY, BUSY, TOO_LATE = 401, 404, 499, 502, 503, 504
WITHOUT_KEY = 1008  # the code of a WebSocket that is closed

T = TypeVar("T")


class Server:
    """What all requests share."""

    def __init__(self, settings: ServeSettings, transcriber: Transcriber, name: str):
        self.settings = settings
        self.name = name  # of the model
        self.started = int(time.time())
        self.engine = Engine(transcriber)
        self.live = None if transcriber.aligner is None else Live(transcriber)
        self.metrics = Metrics(self.engine)
        self.reading = asyncio.Semaphore(settings.workers or max(1, usable_cores() - 1))
        self.requests = 0  # that are served now

    def listener(self) -> Live:
        """A listener for a client who speaks."""
        if self.live is None:
            raise InputError(f"{self.name} cannot tell when words are said, which captions need")
        return self.live.again()

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for a request, of which there are not many."""
        if self.requests >= self.settings.max_requests:
            raise Busy
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1


class Busy(Exception):
    """All places are taken."""


def create_app(settings: ServeSettings, transcriber: Transcriber, name: str) -> FastAPI:
    """The application for a model that is loaded."""
    server = Server(settings, transcriber, name)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(server.engine.close)

    app = FastAPI(title="omni-avsr", version=VERSION, lifespan=lifespan)
    app.add_middleware(BodyLimit, most=settings.max_upload_mb * MEGABYTE)
    _add_errors(app)
    _add_facts(app, server)
    _add_page(app)

    @app.middleware("http")
    async def check_key(request: Request, go_on: Callable) -> Response:
        if request.url.path.startswith("/v1/") and not _has_key(request, settings.api_key):
            return _error(UNKNOWN_KEY, "the API key is missing or wrong", code="invalid_api_key")
        return await go_on(request)

    @app.post("/v1/audio/transcriptions", openapi_extra=described())
    async def transcriptions(request: Request) -> Response:
        """What is said in an upload, as OpenAI's API has it."""
        return await _transcriptions(server, request)

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        """Captions while someone speaks."""
        if not _has_key(socket, settings.api_key):
            await socket.close(WITHOUT_KEY)
            return
        with server.place():
            await converse(socket, server.listener(), server.engine, server.name)

    return app


def _add_facts(app: FastAPI, server: Server) -> None:
    """Adds what tells how the server is, and which model it has."""

    @app.get("/health")
    async def health() -> Row:
        """Whether the server is there."""
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return PlainTextResponse(server.metrics.text())

    @app.get("/v1/models")
    async def models() -> Row:
        """The one model."""
        config = server.engine.transcriber.decoder.model.config
        ours = {
            name: list(getattr(config, name)) for name in ("tasks", "audio_rates", "video_rates")
        }
        facts = {"object": "model", "created": server.started, "owned_by": "omni-avsr", **ours}
        return {"object": "list", "data": [{"id": server.name, **facts}]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Row:
        """The model, by its name."""
        (only,) = (await models())["data"]
        if name != only["id"]:
            raise HTTPException(NOT_FOUND, f"there is no model {name!r}")
        return only


def _add_page(app: FastAPI) -> None:
    """Adds the page for people, with its clips."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(FOLDER / "page.html")

    @app.get("/page/noises", include_in_schema=False)
    async def noises() -> list[str]:
        return list(NOISES)

    @app.get("/page/noises/{kind}", include_in_schema=False)
    async def noise(kind: str) -> Response:
        if kind not in NOISES:
            raise HTTPException(NOT_FOUND, f"there is no noise {kind!r}")
        return Response(await asyncio.to_thread(as_wav, kind), media_type="audio/wav")

    @app.get("/page/clips", include_in_schema=False)
    async def clips() -> list[str]:
        return CLIPS

    @app.get("/page/clips/{name}", include_in_schema=False)
    async def clip(name: str) -> Response:
        if name not in CLIPS:
            raise HTTPException(NOT_FOUND, f"there is no clip {name!r}")
        return FileResponse(FOLDER / "clips" / name)


async def _transcriptions(server: Server, request: Request) -> Response:
    started = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(server.place())
        async with request.form(max_files=1, max_fields=64) as form:
            asked = Asked.of(_fields(form), server.settings, server.name)
            upload = form.get("file")
            if not isinstance(upload, UploadFile):
                raise Refused("a file is needed", "file")
            file = await asyncio.to_thread(_kept, upload)
        stack.callback(file.unlink)
        longest = server.settings.max_seconds
        work = Work(server.engine, file, asked, longest, server.reading)
        held = stack.pop_all()
    if asked.stream:
        # The background task is for clients who have gone before the first event
        background = BackgroundTask(held.close)
        events = _events(server, work, held, started)
        return EventSourceResponse(events, background=background)
    whole = _whole(work, held)
    transcript = await _unless_gone(request, server.settings.timeout, whole)
    if work.problem and not transcript.segments:
        raise work.problem
    server.metrics.note(transcript, time.monotonic() - started)
    return _written(transcript, work)


async def _segments(work: Work, held: ExitStack) -> AsyncGenerator[Segment]:
    """The segments of an upload; its file and its place go in the end."""
    with held:
        async with aclosing(work.segments()) as segments:
            async for segment in segments:
                yield segment


async def _whole(work: Work, held: ExitStack) -> Transcript:
    transcript = Transcript(work.file)
    async with aclosing(_segments(work, held)) as segments:
        async for segment in segments:
            transcript.segments.append(segment)
    return transcript


async def _events(
    server: Server, work: Work, held: ExitStack, started: float
) -> AsyncGenerator[Row]:
    """The events of a streamed transcript."""
    transcript = Transcript(work.file)
    problem = None
    try:
        async with aclosing(_segments(work, held)) as segments:
            async for segment in segments:
                space = " " if transcript.text else ""
                transcript.segments.append(segment)
                if segment.text:
                    yield _event("transcript.text.delta", delta=space + segment.text)
                if time.monotonic() - started > server.settings.timeout:
                    raise InputError(LATE)
    except InputError as error:
        problem = error
    if not transcript.segments:
        problem = problem or work.problem
    if problem:
        yield _event("error", error={"message": told_of(problem)})
        return
    server.metrics.note(transcript, time.monotonic() - started)
    yield _event("transcript.text.done", text=transcript.text)


def _event(kind: str, **facts: Any) -> Row:
    return {"data": json.dumps({"type": kind, **facts}, ensure_ascii=False)}


async def _unless_gone(request: Request, timeout: float, work: Coroutine[Any, Any, T]) -> T:
    """What some work gives; it is cancelled if its client hangs up, or if it takes too long."""
    task = asyncio.create_task(work)
    try:
        async with asyncio.timeout(timeout):
            while not task.done():
                await asyncio.wait([task], timeout=WATCHED_EVERY)
                if not task.done() and await request.is_disconnected():
                    raise asyncio.CancelledError
            return task.result()
    finally:
        task.cancel()


def _written(transcript: Transcript, work: Work) -> Response:
    """A transcript in the format that is asked for; a header says what could not be read."""
    asked = work.asked
    headers = {"x-omni-avsr-warning": _one_line(str(work.problem))} if work.problem else {}
    if asked.format == "text":
        return PlainTextResponse(f"{transcript.text}\n", headers=headers)
    if asked.format in SUBTITLES:
        return PlainTextResponse(_subtitles(transcript, asked.format), headers=headers)
    whole: Row = {"text": transcript.text}
    if asked.format == "verbose_json":
        whole = _verbose(transcript, work)
    if asked.logprobs:
        whole["logprobs"] = [one for own in transcript.segments for one in work.logprobs(own)]
    return JSONResponse(whole, headers=headers)


def _verbose(transcript: Transcript, work: Work) -> Row:
    """A transcript as verbose JSON, with what is asked for."""
    seconds = max((segment.end for segment in transcript.segments), default=0.0)
    whole = as_verbose(transcript, seconds)
    if work.asked.mouths:
        for segment, seen in zip(whole["segments"], work.seen, strict=True):
            segment["mouths"] = seen
    if "word" not in work.asked.granularities:
        del whole["words"]
    if "segment" not in work.asked.granularities:
        del whole["segments"]
    return whole


def _subtitles(transcript: Transcript, format: str) -> str:
    parts = ["WEBVTT\n"] if format == "vtt" else []
    number = 0
    for segment in transcript.segments:
        if segment.text:
            for cue in cues(segment, format):
                number += 1
                parts.append(written(cue, format, number))
    return "\n".join([*parts, ""])


def _fields(form: FormData) -> dict[str, list[str]]:
    """The fields of a form that are texts, each with all its values."""
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.setdefault(name, []).append(value)
    return fields


def _kept(upload: UploadFile) -> Path:
    """The file of an upload, under a name that is ours."""
    suffix = Path(upload.filename or "").suffix
    safe = suffix if suffix[1:].isalnum() and len(suffix) < 8 else ""
    descriptor, name = tempfile.mkstemp(safe, "omni-avsr-")
    with os.fdopen(descriptor, "wb") as out:
        shutil.copyfileobj(upload.file, out)
    return Path(name)


def _has_key(request: HTTPConnection, key: str | None) -> bool:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    given = given or request.query_params.get("key", "")  # as browsers open a WebSocket
    return key is None or hmac.compare_digest(given.encode(), key.encode())


def _add_errors(app: FastAPI) -> None:
    """Makes errors what OpenAI's clients expect."""

    @app.exception_handler(InputError)
    async def refused(_: Request, error: InputError) -> Response:
        field = error.field if isinstance(error, Refused) else None
        return _error(400, str(error), field)

    @app.exception_handler(HTTPException)
    async def elsewhere(_: Request, error: HTTPException) -> Response:
        return _error(error.status_code, error.detail)

    @app.exception_handler(EngineError)
    async def broken(_: Request, error: EngineError) -> Response:
        return _error(BAD_GATEWAY, told_of(error))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=GONE)  # nobody reads it

    @app.exception_handler(Busy)
    async def busy(_: Request, __: Busy) -> Response:
        message = "the server has as many requests as it takes: try again in a few seconds"
        return _error(BUSY, message, retry_after=RETRY_AFTER)

    @app.exception_handler(TimeoutError)
    async def late(_: Request, __: TimeoutError) -> Response:
        return _error(TOO_LATE, LATE)


def _error(
    status: int,
    message: str,
    field: str | None = None,
    code: str | None = None,
    retry_after: str | None = None,
) -> Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": field, "code": code}
    headers = {"retry-after": retry_after} if retry_after else {}
    return JSONResponse({"error": error}, status, headers)


def _one_line(text: str) -> str:
    """A text that a header can have."""
    return " ".join(text.split()).encode("latin-1", "replace").decode("latin-1")
