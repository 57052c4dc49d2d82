"""A service with something to see, and browsers that are signed in to its panel."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.auth.bootstrap import add_key, new_secret
from app.identity import Role

ORIGIN = {"Origin": "http://testserver", "Accept": "text/html,application/xhtml+xml"}
SignIn = Callable[..., TestClient]


@pytest.fixture
def sign_in(service: FastAPI) -> SignIn:
    """Signs a browser in with a new key of a role and a tenant."""

    def sign(role: Role = "member", tenant: str = "default") -> TestClient:
        secret = new_secret()
        with service.state.database.session() as session:
            add_key(session, f"{role} of {tenant}", role, tenant, secret, made_by=None)
        browser = TestClient(service, headers=ORIGIN, follow_redirects=False)
        answer = browser.post("/sign-in", data={"key": secret})
        assert (answer.status_code, answer.headers["location"]) == (303, "/jobs")
        return browser

    return sign
