"""How `judge --serve` goes on Ray Serve: where it says that it is, and what its engines are allowed."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from judge_service import SERVICE, Program

from ray_app.engine.base import Work
from ray_app.engine.settings import EngineSettings
from ray_app.serving import application, http_service
from ray_app.serving.settings import HttpSettings


class Serve:
    """Stands for Ray Serve. `address`: where one listens that is up already; `bound`: what the service was given."""

    def __init__(self, address: tuple[str, int] | None, certificate: str | None = None) -> None:
        self.address, self.certificate = address, certificate
        self.applications: dict[str, Any] = {"another": None} if address else {}
        self.bound: tuple[Any, ...] = ()

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(proxies={"p": 1} if self.address else {}, applications=self.applications)

    def start(self, http_options: dict[str, Any], logging_config: dict[str, Any]) -> None:
        self.address = self.address or (http_options["host"], http_options["port"])  # one that is up takes no new one

    def client(self) -> SimpleNamespace:
        assert self.address, "it has none before it is up"
        host, port = self.address
        return SimpleNamespace(http_config=SimpleNamespace(host=host, port=port, ssl_certfile=self.certificate))

    def options(self, **_: Any) -> Serve:
        return self  # the deployment, too

    def bind(self, *given: Any) -> tuple[Any, ...]:
        return given

    def run(self, service: tuple[Any, ...], name: str, route_prefix: str) -> None:
        self.applications[name], self.bound = None, service

    def delete(self, name: str, _blocking: bool) -> None:
        del self.applications[name]

    def shutdown(self) -> None:
        self.address = None


def served(monkeypatch: pytest.MonkeyPatch, fake: Serve, **http: Any) -> None:
    """`run_service` up to its first wait, where a signal ends it."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(application.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(application, "serve", fake)
    monkeypatch.setattr(http_service, "serve", fake)
    monkeypatch.setattr(http_service, "JudgeService", fake)
    monkeypatch.setattr(http_service, "_get_global_client", fake.client)
    monkeypatch.setattr(http_service, "time", SimpleNamespace(sleep=interrupt))
    engine = EngineSettings(model="m", kind="scripted")
    pool: Any = SimpleNamespace(actors=[object()], settings=engine)
    judge: Any = SimpleNamespace(engine=engine, mode="pairwise")
    work = Work(Program(), "serve", None, "m")
    with pytest.raises(KeyboardInterrupt):
        http_service.run_service(pool, judge, work, HttpSettings(**http))


def test_alone_it_is_where_it_was_asked_to_be_and_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    served(monkeypatch, Serve(None), host="0.0.0.0", port=9001)
    assert capsys.readouterr().out == "m is served at http://0.0.0.0:9001: POST /judge, GET /health, GET /metrics\n"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("asked", "found"), [({"port": 9001}, ("127.0.0.1", 8000)), ({}, ("127.0.0.1", 8100)), ({}, ("0.0.0.0", 8000))]
)
def test_where_serve_is_up_already_its_own_address_is_told_and_that_no_other_is_to_be_had(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    asked: dict[str, Any],
    found: tuple[str, int],
) -> None:
    served(monkeypatch, Serve(found), **asked)
    real = f"{found[0]}:{found[1]}"
    assert f"m is served at http://{real}: " in capsys.readouterr().out
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"Ray Serve is up on this cluster already, and listens at {real} for all applications: http.host and http.port"
        f" (127.0.0.1:{asked.get('port', 8000)}) have no effect"
    )


def test_one_that_is_up_already_where_it_was_asked_to_be_is_no_news(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    served(monkeypatch, Serve(("127.0.0.1", 8000), certificate="its.pem"))
    assert "m is served at https://127.0.0.1:8000: " in capsys.readouterr().out
    assert caplog.records == []


def test_no_engine_of_a_service_is_ever_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a stage is, after some starts that came to nothing (`unit/engine/test_replicas.py`)."""
    fake = Serve(None)
    served(monkeypatch, fake)
    made = object.__new__(SERVICE)
    SERVICE.__init__(made, *fake.bound)  # as Ray Serve makes it
    assert made.asker.engines.limits.patient is True
    replicas = made.asker.replicas
    assert all(replicas.lost(0, 10.0 * i) is not None for i in range(500)), "it is built anew however often"
    assert not replicas.all_dead
