"""What counts once counts once at all replicas together, on every kind of shared state: codes and nonces."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from bartizan.lifecycle.deploy.gateway.caller import Caller, Showing
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.factors import STEP, TRIES, Seal, SecondFactors, code, new_seed
from bartizan.lifecycle.deploy.gateway.identity.settings import SigningSettings, SourceSettings
from bartizan.lifecycle.deploy.gateway.input_signing import signed_headers
from bartizan.lifecycle.deploy.gateway.signed_input import SignedInput
from bartizan.stores.shared import open_state

NOW = 1_795_000_000
REPLICAS, AT_ONCE = 4, 32
SEED, SEAL = new_seed(), Seal(b"s" * 32)
RIGHT = code(SEED, NOW // STEP)
ANN = Caller(id="key:ann", role="maintainer", method="key")


@pytest.fixture(params=["memory", "file", "valkey"])
def states(request, tmp_path):
    """Makes the view that each replica has of one shared state."""
    if request.param == "memory":
        one = open_state("memory")
        return lambda: one
    location = request.getfixturevalue("valkey_server").url if request.param == "valkey" else str(tmp_path / "state.db")
    return lambda: open_state(location)


def together(states, work):
    """``work`` at several replicas, many times at each, all at once; gives what came of it."""

    async def go():
        opened = [states() for _ in range(REPLICAS)]
        jobs = [work(state, number) for state in opened for number in range(AT_ONCE // REPLICAS)]
        found = await asyncio.gather(*jobs, return_exceptions=True)
        for state in {id(state): state for state in opened}.values():
            await state.close()
        return found

    return asyncio.run(go())


def refusals(found):
    assert all(not isinstance(each, Exception) or isinstance(each, RequestError) for each in found), found
    return sorted(each.status for each in found if isinstance(each, RequestError))


def test_a_code_counts_once(states):
    sealed = (SEAL.close(SEED, ANN.id),)

    def confirm(state, _number, given=RIGHT):
        factors = SecondFactors(lambda _: sealed, lambda: SEAL, state)
        return factors.confirm(ANN, Showing({b"bartizan-otp": given.encode()}, "192.0.2.1"), float(NOW))

    found = together(states, confirm)
    assert sum(isinstance(each, Caller) for each in found) == 1
    wrong = f"{(int(RIGHT) + 1) % 10**6:06d}"
    again = together(states, lambda state, number: confirm(state, number, wrong))
    assert refusals(again).count(401) <= TRIES
    assert refusals(again)[-1] == 429


def test_a_nonce_counts_once(states):
    secret, body, plain = b"s" * 32, b"{}", {"content-type": "application/json"}
    url = "https://model.example/predict"
    fields = signed_headers(secret, "k", method="POST", url=url, headers=plain, body=body, created=NOW)
    whole = {"host": "model.example"} | plain | fields
    headers = {name.encode(): value.encode() for name, value in whole.items()}
    source = SourceSettings(name="north", keyid="k", algorithm="hmac-sha256", secret="north")

    async def ask(state, _number):
        made = SignedInput(SigningSettings(source=(source,)), lambda _: secret, started=0.0, state=state)
        found = made.source("POST", "/predict", headers, body, float(NOW))
        return await found if inspect.isawaitable(found) else found

    found = together(states, ask)
    assert found.count("north") == 1
    assert set(refusals(found)) == {401}
