"""The HTTP service of one trained model: predictions, health, metrics, and a page to try it."""

import asyncio
import json
import math
import re
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field

from gt import __version__
from gt.errors import UserError
from gt.prediction.trained import Trained
from gt.serving import documentation
from gt.serving.batcher import Batcher, Full
from gt.serving.inputs import KINDS, check_kind, items_of, reads, size_of
from gt.train.extremes import drawn

PLACE = re.compile(
    r"(?:^(?:these graphs, )?|(?<=\bsee ))(?:item|graph|row) \d+(?:: |, | )"
)  # as `gt.data.objects` names its items
TOGETHER = 4  # of the longest items that may be computed together
LONGEST_SMILES = 1_000  # characters of a molecule that is drawn


REFUSALS: dict[int | str, dict[str, Any]] = {
    411: {"description": "No Content-Length"},
    413: {"description": "More inputs or bytes than a request may have"},
    503: {"description": "Too much waits: try again"},
    504: {"description": "No answer in time"},
}


@dataclass(frozen=True)
class Limits:
    """What the service takes.

    Attributes:
        batch: items that are computed together; wait: seconds that they wait for one another.
        room: items that may wait; items: of a request; body: bytes of a request.
        longest: characters of a molecule, nodes of a graph: the cost grows with their square. As much as four of them
            cost may be computed together. Texts are cut where the model was trained to cut them.
        seconds: after which a request is given up.
    """

    batch: int = 64
    longest: int = 2_000
    wait: float = 0.005
    room: int = 4_096
    items: int = 1_024
    body: int = 4_000_000
    seconds: float = 30.0


class Plain(JSONResponse):
    """JSON in ASCII: an answer may quote half a character that was sent."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


class Inputs(BaseModel):
    """What is to be predicted: SMILES or texts, graphs in NetworkX's node-link form, or PyG's as lists of numbers
    (x, edge_index, edge_attr), as the model has learned.
    """

    inputs: Annotated[list[str | dict[str, Any]], Field(min_length=1, examples=[["CCO", "c1ccccc1"]])]


class Outputs(BaseModel):
    """An entry for each input, in order: the columns of ``python -m gt.predict``, or ``{"error": why}``."""

    predictions: list[dict[str, Any]]


def predicted(model: Trained, items: list[Any]) -> list[dict[str, Any]]:
    """A prediction for each item, by column, or why there is none.

    Items that cannot be read together are read in two halves, down to one: what is wrong with it spoils no other.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what cannot be read stands in its place
            table = model.predict(items)
    except UserError as error:
        if len(items) == 1:
            return [_unread(str(error))]
        half = len(items) // 2
        return predicted(model, items[:half]) + predicted(model, items[half:])
    unreadable = table.attrs["unreadable"]
    rows = table[table.attrs["answers"]].to_dict("records")  # other columns are those of whoever asks along
    return [_unread(unreadable[n]) if n in unreadable else _plain(row) for n, row in enumerate(rows)]


def _unread(why: str) -> dict[str, str]:
    """An answer that says why there is none; the place in a batch of many callers tells none of them anything."""
    return {"error": PLACE.sub("", why)}


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    values = {str(name): value.item() if hasattr(value, "item") else value for name, value in row.items()}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def service(model: Trained, name: str, limits: Limits = Limits()) -> FastAPI:
    """The application.

    Args:
        model: in eval mode, on its device.
        name: what pages call it.

    Raises:
        UserError: see `reads`.
    """
    kind, cut = reads(model), model.schema.longest or limits.longest

    def cost(item: Any) -> float:
        return (min(size_of(item), cut if kind == "text" else limits.longest) / limits.longest) ** 2 / TOGETHER

    registry = CollectorRegistry()
    answered = Counter("gt_requests", "Requests by status", ["status"], registry=registry)
    duration = Histogram("gt_request_seconds", "Seconds from a request to its answer", registry=registry)
    sizes = Histogram("gt_batch_items", "Items computed together", buckets=[2**n for n in range(13)], registry=registry)
    waiting = Gauge("gt_waiting_items", "Items that wait", registry=registry)
    batcher = Batcher(
        lambda items: predicted(model, items), limits.batch, limits.wait, limits.room, sizes.observe, cost
    )
    waiting.set_function(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.run())
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    app = FastAPI(
        title=name,
        default_response_class=Plain,
        version=__version__,
        description=f"One {KINDS[kind]} in, one prediction out.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages are scripts of the internet
        redoc_url=None,
    )

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        """What is wrong and where, without what was sent: that may be nothing that JSON can say."""
        return Plain({"detail": [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]}, 422)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return Plain({"detail": error.detail}, error.status_code, error.headers)

    @app.middleware("http")
    async def watched(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        """Turn away what is too large before it is read, and count."""
        start, size = time.perf_counter(), request.headers.get("content-length")
        if request.method == "POST" and size is None:
            response: Response = JSONResponse({"detail": "say the length of the body: Content-Length"}, 411)
        elif size is not None and (not size.isdigit() or int(size) > limits.body):
            response = JSONResponse({"detail": f"a body holds {limits.body:,} bytes at most"}, 413)
        else:
            response = await call(request)
        if request.url.path == "/predict":
            answered.labels(str(response.status_code)).inc()
            duration.observe(time.perf_counter() - start)
        return response

    @app.post("/predict", responses=REFUSALS)
    async def predict(body: Inputs) -> Outputs:
        """Predict each input. What cannot be read has an error in its place; the others are predicted all the same."""
        if len(body.inputs) > limits.items:
            raise HTTPException(413, f"a request holds {limits.items:,} inputs at most, not {len(body.inputs):,}")
        try:
            check_kind(body.inputs, kind)
            items, unread = items_of(body.inputs, kind, limits.longest, model.schema)
            answers = iter(await asyncio.wait_for(batcher.ask(items), limits.seconds))
        except UserError as error:
            raise HTTPException(422, str(error)) from None
        except Full:
            raise HTTPException(503, "too much is waiting: try again", {"Retry-After": "1"}) from None
        except TimeoutError:
            raise HTTPException(504, f"no answer within {limits.seconds:g} s") from None
        places = range(len(body.inputs))
        return Outputs(predictions=[_unread(unread[place]) if place in unread else next(answers) for place in places])

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the service is up, and what it serves."""
        return {
            "status": "ok",
            "model": name,
            "input": kind,
            "target": list(model.schema.target),
            "version": __version__,
        }

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.get("/drawing", responses={404: {"description": "No molecule"}})
    async def drawing(smiles: str) -> Response:
        """A molecule as a PNG file."""
        picture = drawn(smiles) if kind == "molecule" and len(smiles) <= LONGEST_SMILES else None
        if picture is None:
            raise HTTPException(404, "no molecule that could be drawn")
        return Response(picture, media_type="image/png")

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse((files("gt.serving") / "page.html").read_text())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(documentation.page(app.openapi()))

    return app
