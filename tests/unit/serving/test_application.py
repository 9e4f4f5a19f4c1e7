"""On a shared cluster a service ends what it has deployed itself, and nothing of others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ray_app.errors import RunError
from ray_app.serving import http_service
from ray_app.serving.http_service import NAME, Application


class Serve:
    """Stands for Ray Serve: applications that are there, and what is asked of it."""

    def __init__(self, *applications: str) -> None:
        self.applications, self.asked = dict.fromkeys(applications), list[str]()

    def status(self) -> SimpleNamespace:
        return SimpleNamespace(proxies={"p": 1} if self.applications else {}, applications=self.applications)

    def delete(self, name: str, _blocking: bool) -> None:
        self.asked.append(f"delete {name}")
        self.applications.pop(name, None)

    def shutdown(self) -> None:
        self.asked.append("shutdown")


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(http_service.ray, "is_initialized", lambda: True)

    def there(*applications: str) -> Serve:
        fake = Serve(*applications)
        monkeypatch.setattr(http_service, "serve", fake)
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


def test_it_never_takes_the_place_of_another_judge(deployed: object) -> None:
    fake = deployed(NAME)  # type: ignore[operator]
    application = Application()
    with pytest.raises(RunError, match="is served on this cluster already"):
        application.claim()
    application.end(wait=True)
    assert fake.asked == []
