"""Second factors: the codes of RFC 6238, once each, and no guessing."""

from __future__ import annotations

import asyncio
import base64
from urllib.parse import parse_qs, urlsplit

import pytest

from bartizan.core.errors import KeyFileError, StoreError
from bartizan.lifecycle.deploy.gateway.caller import Caller, Showing
from bartizan.lifecycle.deploy.gateway.failures import RequestError
from bartizan.lifecycle.deploy.gateway.identity.factors import (
    STEP,
    TRIES,
    Seal,
    SecondFactors,
    code,
    enrolment,
    new_seed,
)
from bartizan.lifecycle.deploy.gateway.policy import Policy, Rights
from bartizan.stores.shared.memory import MemoryState

NOW = 1_795_000_000.0
ANN = Caller(id="key:ann", role="maintainer", method="key")
SEED, SEAL = new_seed(), Seal(b"s" * 32)
SEALED = SEAL.close(SEED, ANN.id)
ADDRESS = "192.0.2.1"


def factors(state=None, seal=SEAL, seeds=(SEALED,), **more):
    known = {ANN.id: seeds}
    return SecondFactors(lambda caller: known.get(caller, ()), lambda: seal, state or MemoryState(), **more)


def confirm(made, given=None, caller=ANN, now=NOW, client=ADDRESS, **more):
    headers = {} if given is None else {b"bartizan-otp": given.encode()}
    return asyncio.run(made.confirm(caller, Showing(headers, client), now, **more))


def refused(*arguments, **more):
    with pytest.raises(RequestError) as caught:
        confirm(*arguments, **more)
    return caught.value


def right(now=NOW, seed=SEED):
    return code(seed, int(now) // STEP)


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_codes_are_those_of_the_standard(seconds, wanted):
    """RFC 6238, appendix B, SHA-1: the last six of its eight digits."""
    assert code(b"12345678901234567890", seconds // STEP) == wanted


def test_a_code_confirms_whoever_may_do_it_then():
    policy = Policy({"maintainer": Rights(operations=("admin.*",))})
    assert policy.decide(ANN, "admin.key.add").factor
    confirmed = confirm(factors(), right())
    assert confirmed.factors == ("otp",)
    assert policy.decide(confirmed, "admin.key.add").allowed
    assert policy.decide(ANN, "admin.key.add").factor


def test_a_code_counts_once_even_at_another_replica():
    state = MemoryState()
    confirm(factors(state), right())
    assert refused(factors(state), right()).status == 401
    assert confirm(factors(state), right(NOW + STEP), now=NOW + STEP).factors == ("otp",)


def test_codes_of_the_neighbouring_steps_count_and_no_others():
    for steps, counts in ((-2, False), (-1, True), (0, True), (1, True), (2, False)):
        given = right(NOW + steps * STEP)
        if counts:
            assert confirm(factors(), given).factors == ("otp",)
        else:
            assert refused(factors(), given).status == 401


def test_guessing_ends_after_a_few_tries():
    made, wrong = factors(), f"{(int(right()) + 1) % 10**6:06d}"
    assert [refused(made, wrong).status for _ in range(TRIES)] == [401] * TRIES
    assert refused(made, right()).status == 429
    assert refused(made, right(), now=NOW + STEP).status == 429


def test_guesses_at_the_same_time_do_not_slip_through():
    async def go():
        made = factors()
        tries = [made.confirm(ANN, Showing({b"bartizan-otp": b"%06d" % guess}, ADDRESS), NOW) for guess in range(200)]
        return await asyncio.gather(*tries, return_exceptions=True)

    looked_at = [answer for answer in asyncio.run(go()) if not isinstance(answer, RequestError) or answer.status != 429]
    assert len(looked_at) <= TRIES


def test_right_codes_use_up_no_tries():
    made = factors()
    for number in range(3 * TRIES):
        now = NOW + 3 * STEP * number
        assert confirm(made, right(now), now=now).factors == ("otp",)


@pytest.mark.parametrize(
    "given", ["", "12345", "1234567", "abcdef", "\uff11\uff12\uff13\uff14\uff15\uff16", "0" * 10_000]
)
def test_what_is_no_code_does_not_count(given):
    assert refused(factors(), given).status == 401


def test_codes_go_with_keys_that_have_them():
    assert refused(factors(), right(), Caller(id="key:bob", role="maintainer", method="key")).status == 401
    assert refused(factors(), right(), Caller(id=ANN.id, role="maintainer", method="jwt")).status == 401
    assert refused(factors(seal=None), right()).status == 401
    assert refused(factors(seal=Seal(b"t" * 32)), right()).status == 401


def test_a_seed_is_sealed_for_its_caller():
    assert SEED not in SEALED
    with pytest.raises(KeyFileError):
        SEAL.open(SEALED, "key:bob")
    with pytest.raises(KeyFileError):
        SEAL.open(SEALED[:-1] + b"\0", ANN.id)
    with pytest.raises(KeyFileError):
        Seal(b"short")


def test_a_code_lasts_a_while_where_it_need_not_be_fresh():
    made = factors(lasts=300.0)
    assert refused(made, fresh=False).status == 401
    confirm(made, right())
    assert confirm(made, fresh=False).factors == ("otp",)
    assert refused(made, fresh=True).status == 401
    assert refused(made, fresh=False, client="192.0.2.2").status == 401
    assert refused(factors(made._state), fresh=False).status == 401


def test_without_the_shared_state_nothing_is_confirmed():
    class Gone(MemoryState):
        async def count(self, *_, **__):
            raise StoreError("gone")

    assert refused(factors(Gone()), right()).status == 503


def test_an_authenticator_reads_what_is_enrolled():
    said = urlsplit(enrolment(SEED, "abcdefgh2345", "bartizan hospital"))
    assert (said.scheme, said.netloc) == ("otpauth", "totp")
    assert base64.b32decode(parse_qs(said.query)["secret"][0]) == SEED
