"""The HTTP service of one trained model: predictions, health, metrics and a page to try it."""

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
from gt.serving.inputs import KINDS, check_kind, items_of, kind_of, size_of
from gt.train.extremes import draw_molecule

ITEM_NUMBER = re.compile(
    r"(?:^(?:these graphs, )?|(?<=\bsee ))(?:item|graph|row) \d+(?:: |, | )"
)  # how `gt.data.objects` names its items
LONGEST_PER_BATCH = 4  # items of maximum length that may share a batch
LONGEST_SMILES = 1_000  # characters; longer molecules are not drawn


REFUSALS: dict[int | str, dict[str, Any]] = {
    411: {"description": "No Content-Length"},
    413: {"description": "Too many inputs or bytes"},
    503: {"description": "Too many items are waiting: try again"},
    504: {"description": "Timed out"},
}


@dataclass(frozen=True)
class Limits:
    """The limits of the service.

    Attributes:
        batch: items per batch; wait: seconds to wait for a batch to fill.
        room: waiting items; items: items of a request; body: bytes of a request.
        longest: characters of a molecule, or nodes of a graph. The cost of an item grows with the square, and a batch
            may cost as much as four of the longest items. Texts are truncated as in training.
        seconds: timeout of a request.
    """

    batch: int = 64
    longest: int = 2_000
    wait: float = 0.005
    room: int = 4_096
    items: int = 1_024
    body: int = 4_000_000
    seconds: float = 30.0


class Plain(JSONResponse):
    """JSON in ASCII, as an answer may quote a lone surrogate from the request."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


class Inputs(BaseModel):
    """Items to predict, in the form that the model was trained on: SMILES, texts, graphs in NetworkX's node-link form,
    or PyG graphs as lists of numbers (x, edge_index, edge_attr).
    """

    inputs: Annotated[list[str | dict[str, Any]], Field(min_length=1, examples=[["CCO", "c1ccccc1"]])]


class Outputs(BaseModel):
    """An entry for each input, in order: the columns of ``python -m gt.predict``, or ``{"error": reason}``."""

    predictions: list[dict[str, Any]]


def predict_items(model: Trained, items: list[Any]) -> list[dict[str, Any]]:
    """The prediction for each item, by column, or the reason why there is none.

    If a list of items cannot be read, it is bisected, so that a bad item does not affect the others.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unreadable items get an error entry
            table = model.predict(items)
    except UserError as error:
        if len(items) == 1:
            return [_error_entry(str(error))]
        half = len(items) // 2
        return predict_items(model, items[:half]) + predict_items(model, items[half:])
    unreadable = table.attrs["unreadable"]
    rows = table[table.attrs["answers"]].to_dict("records")  # other columns stem from other callers, too
    return [_error_entry(unreadable[n]) if n in unreadable else _json_values(row) for n, row in enumerate(rows)]


def _error_entry(reason: str) -> dict[str, str]:
    """The entry of an unreadable item; its number in the batch is removed, as it means nothing to the caller."""
    return {"error": ITEM_NUMBER.sub("", reason)}


def _json_values(row: dict[Any, Any]) -> dict[str, Any]:
    values = {str(name): value.item() if hasattr(value, "item") else value for name, value in row.items()}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def service(model: Trained, name: str, limits: Limits = Limits()) -> FastAPI:
    """Create the application.

    Args:
        model: a model in eval mode, on its device.
        name: its name on pages.

    Raises:
        UserError: see `kind_of`.
    """
    kind, max_text = kind_of(model), model.schema.longest or limits.longest

    def cost(item: Any) -> float:
        return (
            min(size_of(item), max_text if kind == "text" else limits.longest) / limits.longest
        ) ** 2 / LONGEST_PER_BATCH

    registry = CollectorRegistry()
    answered = Counter("gt_requests", "Requests by status", ["status"], registry=registry)
    duration = Histogram("gt_request_seconds", "Seconds from request to response", registry=registry)
    sizes = Histogram("gt_batch_items", "Items per batch", buckets=[2**n for n in range(13)], registry=registry)
    waiting = Gauge("gt_waiting_items", "Waiting items", registry=registry)
    batcher = Batcher(
        lambda items: predict_items(model, items), limits.batch, limits.wait, limits.room, sizes.observe, cost
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
        docs_url=None,  # FastAPI's own pages load scripts from the internet
        redoc_url=None,
    )

    @app.exception_handler(RequestValidationError)
    async def handle_invalid(request: Request, error: RequestValidationError) -> Response:
        """Report what is wrong and where, without echoing the input, which may not be valid JSON."""
        return Plain({"detail": [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]}, 422)

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> Response:
        return Plain({"detail": error.detail}, error.status_code, error.headers)

    @app.middleware("http")
    async def limit_and_count(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse requests that are too large before reading them, and count requests."""
        start, size = time.perf_counter(), request.headers.get("content-length")
        if request.method == "POST" and size is None:
            response: Response = JSONResponse({"detail": "the Content-Length header is missing"}, 411)
        elif size is not None and (not size.isdigit() or int(size) > limits.body):
            response = JSONResponse({"detail": f"the body must be at most {limits.body:,} bytes"}, 413)
        else:
            response = await call(request)
        if request.url.path == "/predict":
            answered.labels(str(response.status_code)).inc()
            duration.observe(time.perf_counter() - start)
        return response

    @app.post("/predict", responses=REFUSALS)
    async def predict(body: Inputs) -> Outputs:
        """Predict each input. Unreadable inputs get an error in their place and do not affect the others."""
        if len(body.inputs) > limits.items:
            raise HTTPException(413, f"a request may have at most {limits.items:,} inputs, not {len(body.inputs):,}")
        try:
            check_kind(body.inputs, kind)
            items, unreadable = items_of(body.inputs, kind, limits.longest, model.schema)
            answers = iter(await asyncio.wait_for(batcher.ask(items), limits.seconds))
        except UserError as error:
            raise HTTPException(422, str(error)) from None
        except Full:
            raise HTTPException(503, "too many items are waiting: try again", {"Retry-After": "1"}) from None
        except TimeoutError:
            raise HTTPException(504, f"no answer within {limits.seconds:g} s") from None
        indices = range(len(body.inputs))
        return Outputs(
            predictions=[_error_entry(unreadable[index]) if index in unreadable else next(answers) for index in indices]
        )

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the service is up, and which model it serves."""
        return {
            "status": "ok",
            "model": name,
            "input": kind,
            "target": list(model.schema.target),
            "version": __version__,
        }

    @app.get("/metrics")
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.get("/drawing", responses={404: {"description": "No molecule"}})
    async def drawing(smiles: str) -> Response:
        """Draw a molecule as PNG."""
        picture = draw_molecule(smiles) if kind == "molecule" and len(smiles) <= LONGEST_SMILES else None
        if picture is None:
            raise HTTPException(404, "not a molecule that can be drawn")
        return Response(picture, media_type="image/png")

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse((files("gt.serving") / "page.html").read_text())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(documentation.page(app.openapi()))

    return app
