"""On a shared cluster a service ends what it has deployed itself, and nothing of others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ray_app.errors import RunError
from ray_app.serving import application as module
from ray_app.serving.application import NAME, Application, Owner


class Serve:
    """Stands for Ray Serve: applications that are there, what they answer, and what is asked of it."""

    def __init__(self, *applications: str) -> None:
        self.applications, self.asked = dict.fromkeys(applications), list[str]()
        self.answers: dict[str, Any] = {}

    def get_app_handle(self, name: str) -> Any:
        assert name == NAME
        return SimpleNamespace(**{method: Answering(answer) for method, answer in self.answers.items()})

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(proxies={"p": 1} if self.applications else {}, applications=self.applications)

    def delete(self, name: str, _blocking: bool) -> None:
        self.asked.append(f"delete {name}")
        self.applications.pop(name, None)

    def shutdown(self) -> None:
        self.asked.append("shutdown")


class Answering:
    """A method of a deployment, as a handle has it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def remote(self) -> Answering:
        return self

    def result(self, timeout_s: float) -> Any:
        assert 0 < timeout_s < 60
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(module.ray, "is_initialized", lambda: True)

    def there(*applications: str) -> Serve:
        fake = Serve(*applications)
        monkeypatch.setattr(module, "serve", fake)
        return fake

    return there


def test_alone_it_ends_serve_too(deployed: object) -> None:
    fake = deployed()  # type: ignore[operator]
    application = Application()
    application.claim()
    fake.applications[NAME] = None
    application.end(wait=True)
    application.end()
    assert fake.asked == [f"delete {NAME}", "shutdown"]


def test_beside_others_it_ends_itself_alone(deployed: object) -> None:
    fake = deployed("another")  # type: ignore[operator]
    application = Application()
    application.claim()
    fake.applications[NAME] = None
    application.end(wait=True)
    assert fake.asked == [f"delete {NAME}"]
    assert set(fake.applications) == {"another"}


@pytest.mark.parametrize(
    "answers",
    [
        {"abandoned": False, "owner": Owner(False)},
        {"abandoned": TimeoutError(), "owner": Owner(False)},
        {"abandoned": True, "owner": TimeoutError()},
        {},  # of a version that could not be asked
    ],
)
def test_it_never_takes_the_place_of_another_judge(deployed: object, answers: dict[str, Any]) -> None:
    fake = deployed(NAME)  # type: ignore[operator]
    fake.answers = answers
    application = Application()
    with pytest.raises(RunError, match="is served on this cluster already"):
        application.claim()
    application.end(wait=True)
    assert fake.asked == []


@pytest.mark.parametrize("serve_was_there", [True, False])
def test_it_replaces_one_whose_command_was_killed_and_ends_what_that_one_would_have_ended(
    deployed: object, caplog: pytest.LogCaptureFixture, serve_was_there: bool
) -> None:
    fake = deployed(NAME)  # type: ignore[operator]
    fake.answers = {"abandoned": True, "owner": Owner(serve_was_there)}
    application = Application()
    application.claim()
    assert [record.getMessage() for record in caplog.records] == [
        "the application 'judge' of a command that is gone has no engine any more: it is replaced"
    ]
    fake.answers = {"abandoned": False, "owner": application.owner}
    application.end(wait=True)
    assert fake.asked == [f"delete {NAME}"] + ([] if serve_was_there else ["shutdown"])


def test_it_leaves_the_one_that_has_replaced_it(deployed: object) -> None:
    fake = deployed()  # type: ignore[operator]
    application = Application()
    application.claim()
    fake.applications[NAME] = None
    fake.answers = {"owner": Owner(True)}
    application.end(wait=True)
    assert fake.asked == []
    assert set(fake.applications) == {NAME}
