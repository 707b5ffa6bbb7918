"""A trained model behind HTTP: the numbers of Python's own, whoever asks at the same time, and whatever they send."""

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
from gt.errors import UserError
from gt.serve import listen
from gt.serving.app import Limits, service
from gt.serving.batcher import Batcher, Full
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


def asked(app, *calls):
    """Answers to requests (method, path, options) made at the same time."""

    async def all_at_once():
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://gt") as client,
        ):
            return await asyncio.gather(*(client.request(method, path, **options) for method, path, options in calls))

    return asyncio.run(all_at_once())


def predict(*inputs):
    return ("POST", "/predict", {"json": {"inputs": list(inputs)}})


def test_answers_are_those_of_python_whoever_asks_at_the_same_time(model):
    app = service(model, "model", Limits(wait=0.05))
    alone = model.predict(SMILES)["prediction"].tolist()
    answers = asked(app, *(predict(smiles) for smiles in SMILES), predict(*SMILES))
    assert [answer.status_code for answer in answers] == [200] * 7
    together = [answer.json()["predictions"] for answer in answers]
    for smiles, value in zip(range(6), alone, strict=True):
        assert together[smiles][0]["prediction"] == pytest.approx(value, abs=1e-6)
        assert together[6][smiles]["prediction"] == pytest.approx(value, abs=1e-6)


def test_what_cannot_be_read_spoils_nothing_else(model):
    (answer,) = asked(service(model, "model"), predict("CCO", "no molecule", "", "CCO"))
    first, second, third, fourth = answer.json()["predictions"]
    assert first == fourth
    assert set(second) == set(third) == {"error"}
    assert second["error"].startswith("'no molecule'")


def test_half_of_a_character_has_an_error_in_its_place(model):
    body = {"content": '{"inputs": ["\\ud800", "CCO"]}', "headers": {"Content-Type": "application/json"}}
    (answer,) = asked(service(model, "model"), ("POST", "/predict", body))
    half, whole = answer.json()["predictions"]
    assert "lone surrogate" in half["error"]
    assert "error" not in whole


def test_what_is_too_long_has_an_error_in_its_place(model):
    app = service(model, "model", Limits(longest=5))
    answer, alone = asked(app, predict("CCO", "C" * 6, "C" * 5), predict("C" * 9))
    first, second, third = answer.json()["predictions"]
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
def test_bad_requests_are_told_so(model, options, status):
    app = service(model, "model", Limits(items=10, body=1000))
    (answer, good) = asked(app, ("POST", "/predict", options), predict("CCO"))
    assert answer.status_code == status
    assert answer.json()["detail"]
    assert good.status_code == 200


def test_health_metrics_page_and_drawing(model):
    app = service(model, "model")
    calls = (
        ("GET", path, {}) for path in ("/health", "/", "/drawing?smiles=CCO", "/drawing?smiles=x", "/openapi.json")
    )
    health, page, drawing, none, api = asked(app, *calls)
    assert health.json()["input"] == "molecule"
    assert health.json()["target"] == ["y"]
    assert "<form>" in page.text
    assert drawing.content.startswith(b"\x89PNG")
    assert none.status_code == 404
    assert "/predict" in api.json()["paths"]
    (metrics,) = asked(service(model, "model"), ("GET", "/metrics", {}))
    assert "gt_waiting_items 0.0" in metrics.text


def test_a_full_house_turns_away():
    async def play():
        batcher = Batcher(lambda items: time.sleep(0.05) or items, most=2, wait=0.0, room=4)
        worker = asyncio.create_task(batcher.run())
        first = [asyncio.create_task(batcher.ask([n, -n])) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Full):
            await batcher.ask([9])
        assert await asyncio.gather(*first) == [[0, 0], [1, -1]]
        assert await batcher.ask([9]) == [9]
        worker.cancel()

    asyncio.run(play())


def test_callers_take_turns_and_a_batch_holds_no_more_than_it_may_cost():
    batches = []

    async def play():
        batcher = Batcher(
            lambda items: batches.append(items) or items, most=4, wait=0.02, room=99, cost=lambda item: item / 10
        )
        worker = asyncio.create_task(batcher.run())
        assert await asyncio.gather(*map(batcher.ask, ([6, 6, 5, 5, 30, 1, 1, 1], [3, 2], [], [4]))) == [
            [6, 6, 5, 5, 30, 1, 1, 1],
            [3, 2],
            [],
            [4],
        ]
        worker.cancel()

    asyncio.run(play())
    assert batches == [[6], [3, 2, 4], [6], [5, 5], [30], [1, 1, 1]]


def test_batches_are_filled_and_one_callers_error_is_not_anothers():
    seen = []

    def compute(items):
        if "bad" in items:
            raise UserError("bad")
        return [item * 2 for item in items]

    async def play():
        batcher = Batcher(compute, most=4, wait=0.02, room=100, seen=seen.append)
        worker = asyncio.create_task(batcher.run())
        calls = [["a"], ["b"], ["bad"], ["c"], ["d"], list("efghij")]
        answers = await asyncio.gather(*(batcher.ask(items) for items in calls), return_exceptions=True)
        worker.cancel()
        return answers

    answers = asyncio.run(play())
    assert answers[:2] + answers[3:] == [["aa"], ["bb"], ["cc"], ["dd"], ["ee", "ff", "gg", "hh", "ii", "jj"]]
    assert isinstance(answers[2], UserError)
    assert seen == [4, 1, 4, 2] or sum(seen) == 11
    assert max(seen) == 4


def test_the_documentation_says_what_the_schema_says_and_loads_nothing(model):
    app = service(model, "<model>")
    docs, api, redoc = asked(app, *(("GET", path, {}) for path in ("/docs", "/openapi.json", "/redoc")))
    text = html.unescape(docs.text)
    assert not re.search(r"<script|<link|<img|src=|//", docs.text)
    assert re.findall("href=.(.*?)[\"']", text) == ["openapi.json"]
    assert "<h1><model>" not in docs.text
    assert redoc.status_code == 404
    for path, methods in api.json()["paths"].items():
        for method, about in methods.items():
            assert f"{method.upper()} {path}<" in text
            assert about["description"] in text
            assert all(
                f"<code>{code}</code></td><td>{each['description']}" in text
                for code, each in about["responses"].items()
            )
    body = re.search("-d '(.*?)'", text)[1]
    (answer,) = asked(service(model, "model"), ("POST", "/predict", {"json": json.loads(body)}))
    assert answer.status_code == 200
    assert "array of string or object" in text


def test_an_input_of_another_kind_is_named(model):
    app = service(model, "model")
    (answer,) = asked(app, predict({"nodes": [{"id": 0}], "edges": []}))
    assert "inputs[0]" in answer.json()["detail"]


def test_who_calls_early_waits_and_no_answer_is_held_back():
    listener = listen("127.0.0.1", 0)
    caller = socket.create_connection(listener.getsockname())  # nobody has accepted yet
    prompt = []

    async def answer(reader, writer):
        prompt.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.write(b"here")
        writer.close()

    async def serve():
        async with await asyncio.start_server(answer, sock=listener):
            return await asyncio.to_thread(caller.recv, 4)

    assert asyncio.run(serve()) == b"here"
    assert prompt == [1]


@pytest.fixture
def server(run):
    """The program at a free port: its process and address."""
    words = [sys.executable, "-m", "gt.serve", str(run), "--port", "0"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    yield process, re.search(r"http://\S+", line)[0]
    process.kill()
    process.communicate()


def memory(process) -> float:
    """MiB that a process holds."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


@pytest.mark.slow
def test_a_crowd_is_served_and_a_signal_lets_it_finish(server):
    """1,000 requests at once, 200 of them malformed; then 10,000 for the memory; then SIGTERM with some on the way."""
    process, address = server

    host, port = address.removeprefix("http://").split(":")

    async def crowd(count: int, at_once: int, bad: int = 0, inputs: int = 1) -> tuple[list[int], list[float]]:
        """The statuses, in the order of the requests, over as many connections as go at once, and the seconds of each.

        httpx takes ten times as long as the server: what is measured would be the client.
        """
        codes, took, numbers = [0] * count, [], iter(range(count))

        async def caller() -> None:
            reader, writer = await asyncio.open_connection(host, int(port))
            for number in numbers:
                body = (
                    b"{" if number < bad else json.dumps({"inputs": [SMILES[number % len(SMILES)]] * inputs}).encode()
                )
                start = time.perf_counter()
                head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(answer.split("content-length: ")[1].split()[0]))
                took.append(time.perf_counter() - start)
                codes[number] = int(answer.split()[1])
            writer.close()

        await asyncio.gather(*(caller() for _ in range(at_once)))
        return codes, took

    asyncio.run(crowd(10, 1))  # the first imports what reads molecules
    start = time.perf_counter()
    alone, _ = asyncio.run(crowd(30, 1))
    one_by_one = 30 / (time.perf_counter() - start)
    start = time.perf_counter()
    codes, _ = asyncio.run(crowd(1000, 1000, bad=200))
    together = 800 / (time.perf_counter() - start)
    assert alone == [200] * 30
    assert (codes.count(200), codes.count(422)) == (800, 200)
    asyncio.run(crowd(2000, 200))
    before = memory(process)
    codes, later = asyncio.run(crowd(10_000, 200))
    assert codes.count(200) == 10_000
    grown = memory(process) - before
    cuts = statistics.quantiles(later, n=100)
    print(f"{one_by_one:.0f} requests/s one by one, {together:.0f} together")
    print(f"p50 {cuts[49]:.3f} s, p99 {cuts[98]:.3f} s; {grown:+.0f} MiB over 10,000")
    assert together > 3 * one_by_one
    assert grown < 50

    async def last() -> list[int]:
        pending = asyncio.create_task(
            crowd(32, 32, inputs=100)
        )  # seconds of work, all of it there when the signal comes
        await asyncio.sleep(2)
        process.send_signal(signal.SIGTERM)
        return (await pending)[0]

    assert asyncio.run(last()) == [200] * 32
    assert process.wait(40) in (0, -signal.SIGTERM)  # its own end, by the signal once all is answered
