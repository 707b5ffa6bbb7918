"""The HTTP service: concurrent requests get Python's predictions; malformed input, documentation, load."""

import asyncio
import html
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import gt
from gt.serve import listen
from gt.serving.app import Limits, service
from tests.small_runs import train

pytest.importorskip("rdkit")
ROOT = Path(gt.__file__).parents[1]
SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "C", "CCN(CC)CC", "C1CCCCC1Cl"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    table = folder / "molecules.csv"
    table.write_text("smiles,y\n" + "\n".join(f"{'C' * (n + 1)}O,{n / 7}" for n in range(30)))
    overrides = [
        "data=molecules",
        f"data.source.path={table}",
        f"data.source.root={folder}",
        "data.source.split=random",
    ]
    train(folder / "run", *overrides, "trainer.max_epochs=1")
    return folder / "run"


@pytest.fixture(scope="module")
def model(run):
    return gt.load(run)


def send(app, *calls):
    """The responses to simultaneous requests (method, path, options)."""

    async def all_at_once():
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://gt") as client,
        ):
            return await asyncio.gather(*(client.request(method, path, **options) for method, path, options in calls))

    return asyncio.run(all_at_once())


def predict_request(*inputs):
    return ("POST", "/predict", {"json": {"inputs": list(inputs)}})


def test_concurrent_predictions_match_python(model):
    app = service(model, "model", Limits(wait=0.05))
    expected = model.predict(SMILES)["prediction"].tolist()
    responses = send(app, *(predict_request(smiles) for smiles in SMILES), predict_request(*SMILES))
    assert [response.status_code for response in responses] == [200] * 7
    together = [response.json()["predictions"] for response in responses]
    for smiles, value in zip(range(6), expected, strict=True):
        assert together[smiles][0]["prediction"] == pytest.approx(value, abs=1e-6)
        assert together[6][smiles]["prediction"] == pytest.approx(value, abs=1e-6)


def test_unreadable_molecule_affects_no_other_input(model):
    (response,) = send(service(model, "model"), predict_request("CCO", "no molecule", "", "CCO"))
    first, second, third, fourth = response.json()["predictions"]
    assert first == fourth
    assert set(second) == set(third) == {"error"}
    assert second["error"].startswith("'no molecule'")


def test_lone_surrogate_gets_an_error_entry(model):
    body = {"content": '{"inputs": ["\\ud800", "CCO"]}', "headers": {"Content-Type": "application/json"}}
    (response,) = send(service(model, "model"), ("POST", "/predict", body))
    surrogate, valid = response.json()["predictions"]
    assert "lone surrogate" in surrogate["error"]
    assert "error" not in valid


def test_overlong_input_gets_an_error_entry(model):
    app = service(model, "model", Limits(longest=5))
    response, alone = send(app, predict_request("CCO", "C" * 6, "C" * 5), predict_request("C" * 9))
    first, second, third = response.json()["predictions"]
    assert first["prediction"] != third["prediction"]
    assert second == alone.json()["predictions"][0]
    assert "5 characters" in second["error"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"content": b"{"}, 422),
        ({"json": {}}, 422),
        ({"json": {"inputs": []}}, 422),
        ({"json": {"inputs": [1]}}, 422),
        ({"json": {"inputs": "CCO"}}, 422),
        ({"json": {"inputs": [{"nodes": [], "edges": []}]}}, 422),
        ({"json": {"inputs": ["C"] * 11}}, 413),
        ({"content": b" " * 2000}, 413),
        ({"content": b'{"inputs": [NaN]}'}, 422),
        ({"content": b'{"inputs": [{"\\ud800": 1}]}'}, 422),
    ],
)
def test_invalid_requests_get_an_error_status(model, options, status):
    app = service(model, "model", Limits(items=10, body=1000))
    (response, good) = send(app, ("POST", "/predict", options), predict_request("CCO"))
    assert response.status_code == status
    assert response.json()["detail"]
    assert good.status_code == 200


def test_health_metrics_page_and_drawing(model):
    app = service(model, "model")
    calls = (
        ("GET", path, {}) for path in ("/health", "/", "/drawing?smiles=CCO", "/drawing?smiles=x", "/openapi.json")
    )
    health, page, drawing, invalid_drawing, api = send(app, *calls)
    assert health.json()["input"] == "molecule"
    assert health.json()["target"] == ["y"]
    assert "<form>" in page.text
    assert drawing.content.startswith(b"\x89PNG")
    assert invalid_drawing.status_code == 404
    assert "/predict" in api.json()["paths"]
    (metrics,) = send(service(model, "model"), ("GET", "/metrics", {}))
    assert "gt_waiting_items 0.0" in metrics.text


def test_documentation_matches_schema_and_loads_nothing(model):
    app = service(model, "<model>")
    docs, api, redoc = send(app, *(("GET", path, {}) for path in ("/docs", "/openapi.json", "/redoc")))
    text = html.unescape(docs.text)
    assert not re.search(r"<script|<link|<img|src=|//", docs.text)
    assert re.findall("href=.(.*?)[\"']", text) == ["openapi.json"]
    assert "<h1><model>" not in docs.text
    assert redoc.status_code == 404
    for path, methods in api.json()["paths"].items():
        for method, operation in methods.items():
            assert f"{method.upper()} {path}<" in text
            assert operation["description"] in text
            assert all(
                f"<code>{code}</code></td><td>{response['description']}" in text
                for code, response in operation["responses"].items()
            )
    body = re.search("-d '(.*?)'", text)[1]
    (example_response,) = send(service(model, "model"), ("POST", "/predict", {"json": json.loads(body)}))
    assert example_response.status_code == 200
    assert "array of string or object" in text


def test_input_of_the_wrong_kind_is_rejected(model):
    app = service(model, "model")
    (response,) = send(app, predict_request({"nodes": [{"id": 0}], "edges": []}))
    assert "inputs[0]" in response.json()["detail"]


def test_early_connections_wait_and_responses_are_not_delayed():
    listener = listen("127.0.0.1", 0)
    client = socket.create_connection(listener.getsockname())  # before the server accepts connections
    no_delay = []

    async def answer(reader, writer):
        no_delay.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.write(b"here")
        writer.close()

    async def serve():
        async with await asyncio.start_server(answer, sock=listener):
            return await asyncio.to_thread(client.recv, 4)

    assert asyncio.run(serve()) == b"here"
    assert no_delay == [1]


@pytest.fixture
def server(run):
    """The program on a free port: its process and address."""
    words = [sys.executable, "-m", "gt.serve", str(run), "--port", "0"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    yield process, re.search(r"http://\S+", line)[0]
    process.kill()
    process.communicate()


def memory(process) -> float:
    """The resident memory of a process in MiB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


@pytest.mark.slow
def test_load_memory_and_graceful_shutdown(server):
    """1,000 requests at once, 200 malformed; then 10,000 to measure memory; then SIGTERM with requests pending."""
    process, address = server

    host, port = address.removeprefix("http://").split(":")

    async def send_many(count: int, at_once: int, bad: int = 0, inputs: int = 1) -> tuple[list[int], list[float]]:
        """The status of each request in order, and the latencies in seconds, over ``at_once`` connections.

        This does without httpx, which takes ten times as long as the server: the client would be measured.
        """
        codes, seconds, remaining = [0] * count, [], iter(range(count))

        async def connection() -> None:
            reader, writer = await asyncio.open_connection(host, int(port))
            for number in remaining:
                body = (
                    b"{" if number < bad else json.dumps({"inputs": [SMILES[number % len(SMILES)]] * inputs}).encode()
                )
                start = time.perf_counter()
                head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(headers.split("content-length: ")[1].split()[0]))
                seconds.append(time.perf_counter() - start)
                codes[number] = int(headers.split()[1])
            writer.close()

        await asyncio.gather(*(connection() for _ in range(at_once)))
        return codes, seconds

    asyncio.run(send_many(10, 1))  # the first request imports the parser of molecules
    start = time.perf_counter()
    codes_one_by_one, _ = asyncio.run(send_many(30, 1))
    one_by_one_rate = 30 / (time.perf_counter() - start)
    start = time.perf_counter()
    codes, _ = asyncio.run(send_many(1000, 1000, bad=200))
    at_once_rate = 800 / (time.perf_counter() - start)
    assert codes_one_by_one == [200] * 30
    assert (codes.count(200), codes.count(422)) == (800, 200)
    asyncio.run(send_many(2000, 200))
    memory_before = memory(process)
    codes, latencies = asyncio.run(send_many(10_000, 200))
    assert codes.count(200) == 10_000
    growth = memory(process) - memory_before
    cuts = statistics.quantiles(latencies, n=100)
    print(f"{one_by_one_rate:.0f} requests/s one by one, {at_once_rate:.0f} together")
    print(f"p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s; {growth:+.0f} MiB over 10,000")
    assert at_once_rate > 3 * one_by_one_rate
    assert growth < 50

    async def shut_down() -> list[int]:
        pending = asyncio.create_task(send_many(32, 32, inputs=100))  # seconds of work, all received before the signal
        await asyncio.sleep(2)
        process.send_signal(signal.SIGTERM)
        return (await pending)[0]

    assert asyncio.run(shut_down()) == [200] * 32
    assert process.wait(40) in (0, -signal.SIGTERM)  # by itself, or by the signal once all requests are answered
