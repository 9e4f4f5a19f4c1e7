"""`judge --serve` as a client sees it: right under load, clear when it refuses, and gone when it is told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from commands import QUIET, command, lines
from loop_runs import DEMO
from services import Service, scripted

pytestmark = pytest.mark.timeout(600)
PAIR = {"instruction": "Name a fruit.", "response_a": "GOOD apple", "response_b": "brick"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    limits = ["--http.max_pairs", 8, "--http.max_body_mib", 0.1, "--http.max_in_flight", 32]
    folder = tmp_path_factory.mktemp("serve")
    script = {"p": [1.0], "delay_s": 0.05, "hold": r"slow \d", "until": str(folder / "go")}
    made = Service(folder, *scripted(**script), "--engine.replicas", 2, "--votes", 3, *limits)
    try:
        yield made.ready()
    finally:
        made.stop()


def test_one_pair_many_pairs_and_explanations(service: Service) -> None:
    found = service.judge(**PAIR, id="x", explanations=True).json()
    texts = found.pop("explanations")
    assert found["verdict"] == "A"
    assert found["orders"]["ba"] == {"verdict": "B", "votes": {"A": 0, "B": 2, "unparsed": 0}, "partial": True}
    assert [text[-5:] for text in texts["ab"]] == ["[[A]]"] * 2, "two of three votes settle it"
    many = service.judge(pairs=[{**PAIR, "id": "good"}, {**PAIR, "id": "bad", "instruction": ""}], votes=1).json()
    assert [v["verdict"] for v in many["verdicts"]] == ["A", None]
    assert many["verdicts"][1]["quarantined"] == "empty_instruction"


def test_every_answer_under_load_is_its_own(service: Service) -> None:
    before = service.metric('judge_requests_total{status="200"}')

    def ask(number: int) -> bool:
        sides = [f"GOOD {number}", f"other {number}"]
        a, b = sides if number % 2 else sides[::-1]
        pairs = [
            {"id": f"{number}-{i}", "instruction": f"q {number} {i}", "response_a": a, "response_b": b} for i in "xy"
        ]
        while True:
            answer = service.judge(pairs=pairs)
            if answer.status_code != 503:
                break
            assert answer.headers["Retry-After"] == "1"
            time.sleep(0.05)
        verdicts = answer.json()["verdicts"]
        gold = "A" if number % 2 else "B"
        return [(v["id"], v["verdict"]) for v in verdicts] == [(f"{number}-x", gold), (f"{number}-y", gold)]

    with ThreadPoolExecutor(12) as threads:
        assert all(threads.map(ask, range(200)))
    assert service.metric('judge_requests_total{status="200"}') == before + 200
    assert service.metric("judge_pairs_in_flight") == 0


def test_slow_bodies_cost_themselves_alone(service: Service) -> None:
    """More clients than there is place for begin a body, and send no more of it."""
    refused = 'judge_requests_total{status="503"}'
    with contextlib.ExitStack() as open_:
        before, deadline = service.metric(refused), time.monotonic() + 60
        for _ in range(40):
            open_.enter_context(service.sends(b"{", 100))
        while service.metric(refused) < before + 8:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        while (answer := service.judge(**PAIR)).status_code == 503:
            assert answer.headers["Retry-After"] == "1"
            assert time.monotonic() < deadline
            time.sleep(1)
        assert answer.status_code == 200
        assert service.client.get("/health").status_code == 200
        assert service.metric('judge_requests_total{status="408"}') == 1, "one made room"


def test_a_client_that_hangs_up_frees_its_place(service: Service) -> None:
    """Ray Serve tells the handler; its own part stands in `unit/serving/test_deadlines.py`."""
    with service.sends(json.dumps({**PAIR, "instruction": "slow 0"}).encode()):
        in_flight(service, 1)
    in_flight(service, 0)


def in_flight(service: Service, pairs: int) -> None:
    deadline = time.monotonic() + 60
    while service.metric("judge_pairs_in_flight") != pairs:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_more_than_it_takes_is_refused_and_it_goes_on(service: Service) -> None:
    pairs = [{**PAIR, "id": i, "instruction": f"slow {i}"} for i in range(8)]
    with ThreadPoolExecutor(4) as threads:
        taken = [threads.submit(service.judge, pairs=pairs) for _ in range(4)]
        while service.metric("judge_pairs_in_flight") < 32:
            time.sleep(0.05)
        refused = [service.judge(pairs=pairs), service.judge(**PAIR)]
        (service.log.parent / "go").touch()
        assert [answer.result().status_code for answer in taken] == [200] * 4
    assert [answer.status_code for answer in refused] == [503] * 2
    assert service.judge(pairs=pairs * 2).status_code == 413
    assert service.judge(**{**PAIR, "response_a": "x" * 200_000}).status_code == 413
    unknown = service.judge(**PAIR, vote=3)
    assert unknown.status_code == 422
    assert "vote" in unknown.json()["error"]
    for hostile in (b"{", b'{"id": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 9000):
        answer = service.client.post("/judge", content=hostile)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("the body is not JSON: ")
    chunks = (b" " * 50_000 for _ in range(200))  # of unknown length: no header says that it is too long
    assert service.client.post("/judge", content=chunks).status_code == 413
    assert service.judge(**{**PAIR, "response_a": None}).status_code == 422
    assert service.judge(**PAIR).status_code == 200


def test_health_and_a_clean_end(service: Service) -> None:
    """Last of this service's tests: it is stopped here."""
    health = service.client.get("/health")
    assert health.status_code == 200
    told = health.json()
    assert told.pop("tokens") > 0
    assert told == {"model": "scripted", "engines": 2, "answering": 2, "pairs_in_flight": 0, "quiet_s": 0.0}
    os.kill(service.process.pid, signal.SIGTERM)
    assert service.process.wait(120) == 143
    assert "stopped; the service has ended" in service.log.read_text()
    assert "Traceback" not in service.log.read_text()
    with pytest.raises(httpx.TransportError):
        service.client.get("/health")


@pytest.mark.matrix
def test_a_poison_or_hung_request_costs_itself_alone(tmp_path: Path) -> None:
    """It ends engines, or makes them stand still, whoever asks; the service goes on, and nobody else notices."""
    limits = ["--engine.replicas", 2, "--engine.stall_timeout_s", 3]
    script = {word: rf"{name}.*<response_a>\s*GOOD" for word, name in (("kills", "poison"), ("stalls", "hang"))}
    service = Service(tmp_path, *scripted(p=[1.0], **script), *limits)
    service.client.timeout = 500
    try:
        service.ready()
        with ThreadPoolExecutor(10) as threads:
            bad = {word: threads.submit(service.judge, **PAIR | {"instruction": word}) for word in ("poison", "hang")}
            others = [threads.submit(service.judge, **PAIR | {"instruction": f"q {number}"}) for number in range(60)]
            assert {other.result().json()["verdict"] for other in others} == {"A"}
            found = {word: answer.result() for word, answer in bad.items()}
        assert {word: answer.status_code for word, answer in found.items()} == {"poison": 422, "hang": 422}
        assert "killed_engine" in found["poison"].json()["error"]
        assert "timeout" in found["hang"].json()["error"]
        assert service.judge(**PAIR).json()["verdict"] == "A"
        while service.client.get("/health").json()["answering"] < 2:  # both come back
            time.sleep(0.2)
    finally:
        service.stop()


def test_files_and_http_exclude_each_other(tmp_path: Path) -> None:
    both = command("judge", *scripted(), "--serve", "--input", DEMO / "test.jsonl")
    assert both.returncode == 2
    assert "--input has no meaning with --serve" in both.stderr
    neither = command("judge", *scripted(), "--output", tmp_path / "v.jsonl")
    assert neither.returncode == 2
    assert "--input is missing" in neither.stderr


@pytest.mark.long
def test_the_real_model_says_over_http_what_it_says_of_a_file(tmp_path: Path, model: str) -> None:
    greedy = ["--prompt", "judge_pairwise_small", "--generation", '{"max_tokens": 24, "temperature": 0}']
    engine = ["--model", model, "--engine.device", "cpu", "--engine.max_model_len", 1024, "--engine.dtype", "float32"]
    engine += ["--engine.cpu_threads", 1]
    pairs = lines(DEMO / "test.jsonl")[:2]
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    target = tmp_path / "v.jsonl"
    ended = command("judge", *engine, *greedy, *QUIET, "--input", source, "--output", target, "--explanations")
    assert ended.returncode == 0, ended.stderr[-2000:]
    service = Service(tmp_path, *engine, *greedy)
    try:
        names = ("id", "instruction", "response_a", "response_b")
        asked = [{name: pair[name] for name in names} for pair in pairs]
        answer = service.ready().judge(pairs=asked, explanations=True)
        assert answer.json()["verdicts"] == lines(target)
    finally:
        service.stop()
