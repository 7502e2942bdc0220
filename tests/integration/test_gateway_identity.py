"""Who is let in and what to, through a gateway that really runs: keys, tokens, passes, second factors."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from bartizan.cli.main import run
from bartizan.core.keys import generate, keyid_of, load_public, public_pem
from bartizan.lifecycle.deploy.gateway.identity.factors import STEP, code
from bartizan.lifecycle.deploy.gateway.identity.keys import KeyWanted
from bartizan.lifecycle.deploy.gateway.input_signing import signed_headers
from bartizan.wiring import gatekeys
from bartizan.wiring.workspace import Workspace
from fixtures.gateways import configured, serving
from fixtures.issuers import SigningKey, provider

CONFIGURATION = """
[identity.keys]
poll = 0.5

[[identity.issuer]]
issuer = "{issuer}"
audiences = ["gateway"]
algorithms = ["ES256"]
groups = "groups"
attributes = {{ organisation = "org" }}

[[identity.issuer.role]]
claim = "groups"
value = "maintainers"
role = "security"

[[identity.issuer.role]]
claim = "groups"
value = "ml"
role = "user"

[identity.passes]
hardware = ["{hardware}"]

[[identity.signing.source]]
name = "north"
keyid = "key-north"
algorithm = "hmac-sha256"
secret = "north"

[[identity.signing.source]]
name = "scanner"
keyid = "key-scanner"
algorithm = "ed25519"
public_key = '''{public}'''

[identity.signing]
longest = 20
scheme = "http"

[policy]
cedar = "policies"

[budget.few]
limit = 3
window = "1h"

[budget.little]
unit = "rows"
limit = 10
window = "1h"

[role.user]
operations = ["infer"]

[role.device]
operations = ["infer"]
detail = "rounded-scores"
signed_input = true

[role.analyst]
operations = ["infer"]
detail = "rounded-scores"

[role.metered]
operations = ["infer"]
budgets = ["few", "little"]

[role.elsewhere]
operations = ["infer", "metadata"]
models = ["another"]

[role.security]
operations = ["explain", "metadata"]
explanations = true
factor = "needed"

[role.risk-owner]
operations = ["explain"]
explanations = true
factor = "needed"

[[guard]]
use = "sanitise"
sources = {{ scanner = [] }}
"""
POLICIES = """
@id("everybody may do what their role may, but analysts")
permit(principal, action, resource) unless { principal.role == "analyst" };

@id("analysts of the clinic are told labels")
permit(principal in Group::"clinic", action in [Action::"infer", Action::"detail.label"], resource == Model::"tumour");

@id("those of the north are told scores")
permit(principal in Group::"clinic", action == Action::"detail.rounded-scores", resource == Model::"tumour")
when { principal.hasTag("organisation") && principal.getTag("organisation") == "north" };

@id("nobody who is suspended")
forbid(principal in Group::"suspended", action, resource);
"""
DECLARED = """
[[document]]
name = "policies"
path = "policies.cedar"
kind = "configuration"
"""
SECRET, SCANNER = b"between the north and the gateway only", generate("ed25519")
PLACE = "/v2/models/tumour"


@pytest.fixture(scope="module")
def issuer():
    with provider() as served:
        yield served


@pytest.fixture(scope="module")
def gateway(tumour_project, tmp_path_factory, issuer):
    """``security`` signs with a key that lies in hardware by what the configuration says, ``risk-owner`` does not."""
    public = (tumour_project / ".bartizan" / "keys" / "security.pub.pem").read_text()
    text = CONFIGURATION.format(
        issuer=issuer.issuer, hardware=keyid_of(load_public(public)), public=public_pem(SCANNER.public_key())
    )
    folder = tmp_path_factory.mktemp("identity") / "project"

    def change(declared):
        (folder / "policies.cedar").write_text(POLICIES)
        bounded = declared.replace('split = "train"', 'ranges = { "mean_radius" = [0.0, 40.0] }\nsplit = "train"', 1)
        return bounded.replace('output = "scores"', 'output = "scores"\nexplanations = ["security", "risk-owner"]')

    configured(tumour_project, folder, text, change=change, also=DECLARED)
    secret = folder / ".bartizan" / "keys" / "north.hmac"
    secret.touch(mode=0o600)
    secret.write_bytes(SECRET)
    with serving(folder) as client:
        yield client


ROW = [[float(number) for number in range(30)]]


def infer(gateway, key="", **headers):
    return gateway.infer(ROW, key, "tumour", **headers)[0]


def explain(gateway, key="", **headers):
    tensor = {"name": "features", "shape": [1, 30], "datatype": "FP64", "data": ROW[0]}
    return gateway.ask("POST", f"{PLACE}/explain", {"inputs": [tensor]}, key, **headers)


def told(gateway, *arguments):
    """What a command prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert run(["-C", str(gateway.folder), *arguments]) == 0
    return said.getvalue().strip()


def pass_of(gateway, role):
    return told(gateway, "keys", "pass", "--role", role)


def key_of(gateway, role):
    return told(gateway, "gateway", "key", "add", "--role", role)


def made(gateway, role, **more):
    """A key, as the command makes it."""
    return gatekeys.add(Workspace(gateway.folder), KeyWanted(role=role, **more)).secret


def settled(gateway):
    """Wait until the gateway knows of every key that was made before."""
    last = made(gateway, "user")
    assert until(lambda: infer(gateway, last) == 200)


def revoke(gateway, key):
    told(gateway, "gateway", "key", "revoke", key.split("_")[1])


def until(answers, seconds=60.0):
    """Whether something comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answers():
            return True
        time.sleep(0.1)
    return False


def test_nobody_is_answered_who_is_not_known(gateway, issuer):
    known = key_of(gateway, "user")
    assert until(lambda: infer(gateway, known) == 200)
    strangers = [
        "",
        known[:-1],
        known + "x",
        "btz_",
        "a.b.c",
        issuer.token(key=SigningKey("first")),
        issuer.token(aud="another"),
        issuer.token(groups=["none"]),
        issuer.token(exp=1),
    ]
    told = {json.dumps(gateway.infer(ROW, stranger, "tumour")[2]) for stranger in strangers}
    assert {infer(gateway, stranger) for stranger in strangers} == {401}
    assert told == {'{"error": "nobody who is known here has sent this"}'}
    assert infer(gateway, known, x_api_key=known) == 401
    assert (
        gateway.raw("POST", f"{PLACE}/infer", "{}", {"content-type": "application/json", "x-api-key": known})[0] != 401
    )


def test_a_role_reaches_its_models_and_operations_only(gateway):
    user, other, unknown = (made(gateway, role) for role in ("user", "elsewhere", "no-role"))
    confined, far = made(gateway, "user", operations=("metadata",)), made(gateway, "user", networks=("10.0.0.0/8",))
    settled(gateway)
    assert explain(gateway, user)[0] == 403
    assert gateway.ask("GET", PLACE, key=user)[0] == 403
    hidden, missing = gateway.ask("GET", PLACE, key=other), gateway.ask("GET", "/v2/models/nothing", key=other)
    assert hidden[0] == missing[0] == 404
    assert hidden[2] == missing[2], "a model that one may not know of looks like one that is not there"
    assert infer(gateway, confined) == 403
    assert infer(gateway, unknown) == 403
    assert infer(gateway, far) == 401


def test_a_revoked_key_is_soon_refused(gateway):
    key = made(gateway, "user")
    assert until(lambda: infer(gateway, key) == 200)
    revoke(gateway, key)
    assert until(lambda: infer(gateway, key) == 401)


def test_tokens_of_the_provider_count_through_a_rotation(gateway, issuer):
    old = issuer.token()
    assert infer(gateway, old) == 200
    issuer.keys = [SigningKey("next"), *issuer.keys]
    new = issuer.token()
    assert until(lambda: infer(gateway, new) == 200), "an unknown key is looked for"
    assert infer(gateway, old) == 200


@pytest.mark.control("2.2-c")
def test_a_privileged_action_needs_a_second_factor_or_a_hardware_key(gateway, issuer):
    without = {
        "an API key": key_of(gateway, "security"),
        "a pass of a key in a file": pass_of(gateway, "risk-owner"),
        "a token by password": issuer.token(groups=["maintainers"], amr=["pwd"]),
        "a token by text message": issuer.token(groups=["maintainers"], amr=["pwd", "sms"]),
        "a token that says nothing": issuer.token(groups=["maintainers"]),
    }
    assert until(lambda: gateway.ask("GET", PLACE, key=without["an API key"])[0] == 200), "what is not privileged"
    for name, credential in without.items():
        status, fields, told = explain(gateway, credential)
        assert (status, told) == (401, {"error": "this takes a second factor"}), name
        assert "insufficient_user_authentication" in fields["www-authenticate"]
    within = {
        "a pass of a key in hardware": pass_of(gateway, "security"),
        "a token by password and code": issuer.token(groups=["maintainers"], amr=["pwd", "otp"]),
        "a token by a hardware key": issuer.token(groups=["maintainers"], amr=["hwk"]),
    }
    for name, credential in within.items():
        assert explain(gateway, credential)[0] == 200, name


def test_a_one_time_code_lets_a_key_do_what_is_privileged(gateway):
    key = key_of(gateway, "security")
    said = told(gateway, "gateway", "key", "otp", key.split("_")[1])
    seed = base64.b32decode(parse_qs(urlsplit(said).query)["secret"][0])

    def now():
        return code(seed, int(time.time()) // STEP)

    wrong = f"{(int(now()) + 1) % 10**6:06d}"
    assert explain(gateway, key, bartizan_otp=wrong)[0] == 401
    shown = []

    def accepted():
        shown.append(now())
        return explain(gateway, key, bartizan_otp=shown[-1])[0] == 200

    assert until(accepted), "the gateway sees the enrolment"
    assert explain(gateway, key, bartizan_otp=shown[-1])[0] == 401
    assert explain(gateway, key, bartizan_otp=wrong)[0] == 401
    assert explain(gateway, key)[0] == 200, "for explanations a code lasts for some minutes"


# ---- attributes


@pytest.mark.control("3.1-d")
def test_roles_and_attributes_decide_how_much_is_told_and_by_default_nothing(gateway):
    nobody = made(gateway, "analyst")
    assert until(lambda: infer(gateway, nobody) == 403), "in no group: no policy permits it"
    keys = {
        "north": {"groups": ("clinic",), "attributes": {"organisation": "north"}},
        "south": {"groups": ("clinic",), "attributes": {"organisation": "south"}},
        "nowhere": {"groups": ("clinic",)},
        "suspended": {"groups": ("clinic", "suspended"), "attributes": {"organisation": "north"}},
        "elsewhere": {"attributes": {"organisation": "north"}},
    }
    secrets = {name: made(gateway, "analyst", **more) for name, more in keys.items()}
    secrets["user"] = made(gateway, "user", groups=("clinic",), attributes={"organisation": "north"})
    settled(gateway)
    answers = {name: gateway.infer(ROW, secret, "tumour") for name, secret in secrets.items()}
    shown = {
        name: (status, sorted(output["name"] for output in answer.get("outputs", ())))
        for name, (status, _, answer) in answers.items()
    }
    assert shown == {
        "north": (200, ["label", "scores"]),
        "south": (200, ["label"]),
        "nowhere": (200, ["label"]),
        "suspended": (403, []),
        "elsewhere": (403, []),
        "user": (200, ["label"]),
    }
    record = recorded(gateway, answers["north"][1]["bartizan-request"])
    assert record["role"] == "analyst"


# ---- signed input


def sign(gateway, key=SECRET, keyid="key-north", body=None, **more):
    """Header fields and body of a signed request."""
    tensor = {"name": "features", "shape": [1, 30], "datatype": "FP64", "data": ROW[0]}
    body = json.dumps({"inputs": [tensor]}).encode() if body is None else body
    plain = {"content-type": "application/json"}
    url = f"http://127.0.0.1:{gateway.port}{PLACE}/infer"
    made = {"created": int(time.time()), **more}
    return plain | signed_headers(key, keyid, method="POST", url=url, headers=plain, body=body, **made), body


def send(gateway, fields, body, key, path=f"{PLACE}/infer"):
    status, answer, _ = gateway.raw("POST", path, body, fields | {"authorization": f"Bearer {key}"})
    return status, answer


def recorded(gateway, request):
    """The audit record of a request."""
    said = told(gateway, "audit", "search", "--id", request, "--reason", "test", "--json")
    [record] = [hit["record"] for hit in json.loads(said)["found"] if hit["record"]["id"] == request]
    return record


@pytest.fixture(scope="module")
def device(gateway):
    key = made(gateway, "device")
    assert until(lambda: infer(gateway, key) == 401 and "signed" in gateway.infer(ROW, key, "tumour")[2]["error"])
    return key


@pytest.mark.control("A-MLSG-004-D001")
def test_a_request_with_a_bad_mac_or_a_stale_time_is_refused(gateway, device):
    fields, body = sign(gateway)
    assert send(gateway, fields, body, device)[0] == 200
    now = int(time.time())
    bad = {
        "sent again": (fields, body),
        "another body": (sign(gateway)[0], body.replace(b"29.0", b"99.0")),
        "another secret": sign(gateway, b"x" * 32),
        "somebody else's name": sign(gateway, SECRET, "key-scanner"),
        "stale": sign(gateway, created=now - 21),
        "of the future": sign(gateway, created=now + 60),
        "no MAC": ({name: value for name, value in sign(gateway)[0].items() if name != "signature"}, body),
        "a MAC of zeros": (sign(gateway)[0] | {"signature": f"bartizan=:{'A' * 43}=:"}, body),
        "not signed": ({"content-type": "application/json"}, body),
    }
    answers = {name: send(gateway, *request, device)[0] for name, request in bad.items()}
    assert answers == dict.fromkeys(bad, 401)
    assert send(gateway, *sign(gateway), device, path=f"{PLACE}/infer?x=1")[0] == 401
    assert send(gateway, *sign(gateway), device)[0] == 200


@pytest.mark.control("A-MLSG-004-D004")
def test_the_source_of_each_input_is_verified_and_logged(gateway, device):
    sources = {}
    for name, key in (("north", SECRET), ("scanner", SCANNER)):
        status, answer = send(gateway, *sign(gateway, key, f"key-{name}"), device)
        assert status == 200
        sources[name] = answer["bartizan-request"]
    assert {name: recorded(gateway, request)["signed_by"] for name, request in sources.items()} == {
        "north": "north",
        "scanner": "scanner",
    }
    status, answer = send(gateway, *sign(gateway, SCANNER, "key-north"), device)
    record = recorded(gateway, answer["bartizan-request"])
    assert (status, record["decision"]) == (401, "refused")
    assert not record.get("signed_by")
    assert any("signed input" in reason for reason in record["reasons"])


@pytest.mark.control("4.2-c")
def test_the_chain_is_chosen_by_the_kind_of_rows_and_by_who_signed_them(gateway, device):
    """No chain is named: a table's values are clipped. What the scanner signs is trusted, and goes on as it is."""
    header, *lines = (gateway.folder / "data" / "train.csv").read_text().splitlines()
    row = next([float(cell) for cell in line.split(",")[:-1]] for line in lines if line.endswith(",0"))
    place = header.split(",").index("mean_radius")

    def scores(radius, key, keyid):
        values = [*row[:place], radius, *row[place + 1 :]]
        tensor = {"name": "features", "shape": [1, 30], "datatype": "FP64", "data": values}
        fields, body = sign(gateway, key, keyid, json.dumps({"inputs": [tensor]}).encode())
        sent = fields | {"authorization": f"Bearer {device}"}
        status, answer, told = gateway.raw("POST", f"{PLACE}/infer", body, sent)
        assert status == 200, told
        outputs = {output["name"]: output["data"] for output in json.loads(told)["outputs"]}
        return outputs["scores"], recorded(gateway, answer["bartizan-request"])

    measured, beyond, within = 12.0, 400.0, 40.0
    north = {radius: scores(radius, SECRET, "key-north") for radius in (measured, beyond, within)}
    scanner = {radius: scores(radius, SCANNER, "key-scanner") for radius in (measured, beyond, within)}
    assert north[beyond][0] == north[within][0] == scanner[within][0], "brought back to its range"
    assert scanner[beyond][0] != scanner[within][0], "not touched"
    assert north[measured][0] == scanner[measured][0]
    assert north[measured][0] != north[within][0]
    for each, filtered in ((north, True), (scanner, False)):
        rulings = each[beyond][1].get("rulings", ())
        assert ("sanitise" in {ruling["guard"] for ruling in rulings}) is filtered


# ---- budgets


@pytest.mark.control("A-MLSG-004-D007")
def test_nobody_unknown_is_answered_and_everybody_else_within_their_budget(gateway):
    assert infer(gateway) == 401
    one, two, third = (made(gateway, "metered") for _ in range(3))
    settled(gateway)
    assert infer(gateway, third) == 200
    assert [infer(gateway, one) for _ in range(5)] == [200, 200, 200, 429, 429], "requests"
    assert infer(gateway, two) == 200, "another identity has its own budget"
    many = [[float(number) for number in range(30)]] * 8
    assert gateway.infer(many, two, "tumour")[0] == 200
    status, fields, _ = gateway.infer(many, two, "tumour")
    assert (status, int(fields["retry-after"]) > 0) == (429, True), "rows: what an answer costs"
