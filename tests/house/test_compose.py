"""Holds docker-compose.yml and the Dockerfile against the settings and against what a deployment must not do."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings

ONE_SHOT = {"migrate"}
OWN = {"api", "worker", "worker-gpu", "migrate"}


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "docker-compose.yml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services(text: str) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return services


def test_the_parts_are_all_there(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == OWN | {"postgres", "redis", "store"}
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    assert services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_every_variable_is_a_setting(text: str) -> None:
    settings = {f"FIFTYTWO_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"FIFTYTWO_[A-Z0-9_]+", text)) - settings == set()


def test_the_values_are_accepted(services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OWN:
        for variable, value in services[name]["environment"].items():
            monkeypatch.setenv(variable, re.sub(r"\$\{\w+:\?[^}]*\}", "0123456789abcdef", value))
        settings = Settings()
        assert settings.database == "postgresql+psycopg://fiftytwo:0123456789abcdef@postgres:5432/fiftytwo"
        assert settings.redis_url == "redis://:0123456789abcdef@redis:6379/0"
        assert settings.storage_url == "s3://fiftytwo"
        assert str(settings.data_dir) == "/data"


def test_no_secret_has_a_default(services: dict[str, dict[str, Any]], text: str) -> None:
    for service in services.values():
        for variable, value in (service.get("environment") or {}).items():
            if re.search(r"(PASSWORD|SECRET|KEY|AUTH|DATABASE_URL|REDIS_URL)(?!_FILE)", variable):
                assert re.search(r"\$\{\w+:\?.+?\}", value), f"{variable} is not demanded"
    assert set(re.findall(r"\$\{(\w+):-", text)) <= {"TORCH_INDEX"}


def test_the_api_and_the_workers_share_the_key_of_receipts(services: dict[str, dict[str, Any]]) -> None:
    for name in OWN - ONE_SHOT:
        assert services[name]["environment"]["FIFTYTWO_RECEIPT_KEY_FILE"] == "/keys/receipt_key.pem"
        assert "keys:/keys" in services[name]["volumes"]


def test_the_first_key_reaches_the_one_who_stores_it(services: dict[str, dict[str, Any]]) -> None:
    assert {name for name in OWN if "FIFTYTWO_BOOTSTRAP_KEY" in services[name]["environment"]} == {"migrate"}


def test_only_the_api_has_a_port_and_only_here(services: dict[str, dict[str, Any]]) -> None:
    assert {name for name, service in services.items() if service.get("ports")} == {"api"}
    assert services["api"]["ports"] == ["127.0.0.1:8052:8052"]
    assert services["api"]["environment"]["FIFTYTWO_PORT"] == "8052"
    for name in set(services) - OWN:
        assert services[name]["networks"] == ["inside"]


def test_redis_asks_for_a_password_and_keeps_messages(services: dict[str, dict[str, Any]]) -> None:
    command = services["redis"]["command"]
    assert command[command.index("--requirepass") + 1].startswith("${REDIS_PASSWORD:?")
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_every_service_tells_its_health_and_comes_back(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name in ONE_SHOT:
            assert service["restart"] == "no"
        else:
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


def test_the_health_checks_in_python_can_run(services: dict[str, dict[str, Any]]) -> None:
    programs = {name: services[name]["healthcheck"]["test"] for name in ("api", "worker", "worker-gpu")}
    for command in programs.values():
        assert command[:3] == ["CMD", "python", "-c"]
        imports = [node for node in ast.parse(command[3]).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert imports
        exec(compile(ast.Module([*imports], []), "healthcheck", "exec"), {})  # noqa: S102  # our own file


def test_nothing_starts_before_what_it_needs(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other, needed in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert needed == {"condition": expected}, f"{name} on {other}"


def test_a_stopped_worker_has_time_for_its_snapshot(services: dict[str, dict[str, Any]]) -> None:
    grace = int(services["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > Settings().stop_grace_seconds + 10


def test_our_containers_may_change_nothing_but_their_data(services: dict[str, dict[str, Any]]) -> None:
    assert {services[name]["image"] for name in OWN} == {"fiftytwo:0.1.0"}
    for name in OWN:
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        mounts = services[name].get("volumes", [])
        assert all(mount.startswith(("models:", "keys:", f"{name}-data:")) for mount in mounts)


def test_images_are_pinned(services: dict[str, dict[str, Any]], root: Path) -> None:
    exact = re.compile(r"^[\w./-]+:\d+\.\d+[\w.-]*$")
    assert [service["image"] for service in services.values() if not exact.match(service["image"])] == []
    dockerfile = (root / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-slim-\w+$", dockerfile, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"python:${PYTHON}"}


def test_the_image_runs_as_nobody_special_with_pinned_packages(root: Path) -> None:
    dockerfile = (root / "Dockerfile").read_text(encoding="utf-8")
    last = dockerfile.rsplit("\nFROM ", 1)[1]
    assert re.findall(r"^USER (\S+)", last, re.MULTILINE) == ["fiftytwo"]
    for line in re.findall(r"pip install.*", dockerfile):
        assert "-c constraints.txt" in line


def test_the_image_is_built_of_the_code_alone(root: Path) -> None:
    kept = {line[1:] for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    assert kept >= {"app", "client", "engine", "worker", "migrations", "pyproject.toml", "constraints.txt", "LICENSE"}
    assert kept & {"tests", ".git", ".env", ".venv", "docs"} == set()
