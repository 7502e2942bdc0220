"""Models behind a server as targets: Open Inference Protocol v2, plain JSON, MLflow scoring.

An adversary outside sees what the server lets out: labels, a ranking, rounded scores. So does an attack here. The
target finds out from the first answer what there is and offers no more. Nothing the server says is believed for its
form: sizes are bounded, and a wrong shape, a number that is none, a class that there is not, or scores that
contradict the label beside them are errors with a name, never a result.

Only this machine is asked unless remote hosts are allowed, redirects are not followed, and the address that was
checked is the one that is connected to. What is sent again after a failure is counted like any other query: the
server may have answered it.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import ipaddress
import math
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeGuard
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from bartizan.core.errors import BudgetError, InputError, WorkError
from bartizan.targets.protocol import Access, Labels, Rows, Scores, Target

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Speaks = Literal["oip", "json", "mlflow"]
MAX_ANSWER_BYTES = 64 << 20
MAX_WORDS = 200
"""Characters of a server's own words that an error repeats."""
RETRIED = frozenset({502, 503, 504})
"""Statuses after which a request is sent again: somebody on the way failed."""
LIMITED = 429
MAX_PAUSE = 300.0
FIRST_PAUSE = 0.2
"""Seconds before a request is sent for the second time; the shortest pause doubles each time after that."""
MAX_NUMBER = 1e300
MAX_SIDES = 2
"""Most dimensions of a tensor that holds labels or scores."""
NAMES = ("BYTES", "INT", "UINT", "BOOL")
"""How the kinds of numbers of a tensor begin that are no scores."""
LABEL_NAMES = ("label", "labels", "class", "predict", "prediction", "output_label")
SCORE_NAMES = ("scores", "probabilities", "probability", "predict_proba", "output_probability")
ANSWER_KEYS = ("predictions", "outputs", "result", "results", "scores", "labels")
ROUNDING = 0.05
"""How far the scores of one class may be from the truth by rounding; a row sums to 1 within this for each class."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model is asked, and how."""

    url: str
    """Of the model, such as ``http://127.0.0.1:8080/v2/models/tumour``; without ``/v2`` as it is posted to."""
    classes: tuple[str, ...]
    """What the server calls the classes, in the order of their indices."""
    columns: tuple[str, ...]
    """Names of the features, in order."""
    speaks: Speaks = "oip"
    inputs: str = ""
    """Name of the input: the tensor (``oip``; taken from the metadata when empty) or the key of the body."""
    outputs: str = ""
    """Key of the answer (``json``, ``mlflow``) or name of the tensor of scores; empty looks at the usual ones."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, such as a role's credentials."""
    seconds: float = 30.0
    """Wall time for one request from connecting to the last byte of the answer, however slowly that drips."""
    retries: int = 3
    """Times that a request which failed on the way is sent again."""
    patience: float = 60.0
    """Longest wait altogether for one request when the server says that it is asked too often. Who asks for no
    pause is given one that doubles each time, so that this also bounds how often it is asked."""
    most_rows: int = 512
    """Rows in one request."""
    role_budget: int = 2**62
    """Rows that may be sent altogether, those sent again included."""
    allow_remote: bool = False


class HttpTarget:
    """A classifier behind a server. See ``Target``. Close it when it is not needed any more."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str = "",
        probe: Rows | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Ask the server one row, the first of ``probe`` or else of zeros, to find out what it answers.

        Raises:
            InputError: the address is none, or is remote without leave.
            WorkError: the server does not answer, or with something else than its protocol says.
        """
        if len(endpoint.classes) < 2 or not endpoint.columns:  # noqa: PLR2004 - one class is no choice
            raise InputError("a served model needs two classes and a feature", remedy="name them.")
        self.name = name or f"model:{urlsplit(endpoint.url).path.rstrip('/').rpartition('/')[2] or 'served'}"
        self.endpoint = endpoint
        self.features, self.classes = len(endpoint.columns), len(endpoint.classes)
        self.class_values = endpoint.classes
        self.sent = 0
        """Rows sent, those sent again included."""
        self.resent = 0
        """Rows sent again."""
        self._wire = _Wire(endpoint, sleep)
        first = np.zeros((1, self.features)) if probe is None else probe[:1]
        try:
            self._input = endpoint.inputs or _BODY_KEYS.get(endpoint.speaks) or self._input_name()
            self._gives_scores = self._ask(first).scores is not None
        except BaseException:
            self._wire.close()
            raise

    @property
    def offers(self) -> frozenset[Access]:
        """See ``Target.offers``. A server trains nothing."""
        return frozenset({Access.LABELS, Access.SCORES} if self._gives_scores else {Access.LABELS})

    def labels(self, rows: Rows) -> Labels:
        """See ``Target.labels``."""
        parts = [answer.labels for answer in self._answers(rows)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def scores(self, rows: Rows) -> Scores:
        """See ``Target.scores``."""
        if not self._gives_scores:
            raise WorkError(f"{self.name} answers labels only", remedy="use an attack that needs labels only.")
        parts = [answer.scores for answer in self._answers(rows) if answer.scores is not None]
        found = np.concatenate(parts) if parts else np.empty((0, self.classes))
        if len(found) != len(rows):
            raise WorkError(f"{self.name} gave scores at first and then left them out")
        return found

    def retrain(self, rows: Rows, labels: Labels, *, seed: int) -> Target:
        """See ``Target.retrain``."""
        del rows, labels, seed
        raise WorkError(f"{self.name} is served and cannot be trained", remedy="use an attack that trains nothing.")

    def close(self) -> None:
        """Let go of the connection."""
        self._wire.close()

    def _answers(self, rows: Rows) -> list[_Answer]:
        if rows.ndim != 2 or rows.shape[1] != self.features:  # noqa: PLR2004 - a matrix
            raise WorkError(f"{self.name} takes rows of {self.features} features and was given an array {rows.shape}")
        size = self.endpoint.most_rows
        return [self._ask(rows[at : at + size]) for at in range(0, len(rows), size)]

    def _ask(self, rows: Rows) -> _Answer:
        body = msgspec.json.encode(_question(self.endpoint, self._input, rows))
        path = self._wire.path + ("/infer" if self.endpoint.speaks == "oip" else "")
        data = self._wire.exchange("POST", path, body, lambda again: self._charge(len(rows), again))
        said = _json(data, self.name)
        answer = _read_oip(said, self.endpoint) if self.endpoint.speaks == "oip" else _read_plain(said, self.endpoint)
        return _checked(answer, len(rows), self.classes, self.name)

    def _charge(self, rows: int, again: bool) -> None:
        if self.sent + rows > self.endpoint.role_budget:
            raise BudgetError(
                f"{self.endpoint.role_budget - self.sent} of the {self.endpoint.role_budget} rows that this role may "
                f"send are left and {rows} more were asked for"
            )
        self.sent += rows
        self.resent += rows if again else 0

    def _input_name(self) -> str:
        said = _json(self._wire.exchange("GET", self._wire.path, b"", lambda _again: None), self.name)
        inputs = said.get("inputs") if isinstance(said, dict) else None
        first = inputs[0] if isinstance(inputs, list) and inputs else None
        named = first.get("name") if isinstance(first, dict) else None
        if not isinstance(named, str):
            raise WorkError(f"{self.name} does not say what its input is called", remedy="name it.")
        return named


# ---- what is asked


_BODY_KEYS: dict[str, str] = {"json": "instances", "mlflow": "dataframe_split"}


def _question(endpoint: Endpoint, name: str, rows: Rows) -> dict[str, Any]:
    plain = np.asarray(rows, dtype=np.float64).tolist()
    if endpoint.speaks == "oip":
        return {"inputs": [{"name": name, "shape": list(rows.shape), "datatype": "FP64", "data": plain}]}
    if name == "dataframe_split":
        return {name: {"columns": list(endpoint.columns), "data": plain}}
    return {name: plain}


# ---- what is answered


@dataclass(frozen=True, slots=True)
class _Answer:
    labels: NDArray[np.int64]
    scores: NDArray[np.float64] | None


def _json(data: bytes, name: str) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise WorkError(
            f"{name} answers with something that is no JSON: {_words(data)}",
            remedy="see that the address is that of a model; NaN and Infinity are no JSON either.",
        ) from error


def _read_oip(said: Any, endpoint: Endpoint) -> tuple[Any, Any]:
    """Labels and scores of an inference response, each as nested lists or None."""
    listed = said.get("outputs") if isinstance(said, dict) else None
    tensors = {
        tensor["name"]: tensor
        for tensor in (listed if isinstance(listed, list) else ())
        if isinstance(tensor, dict) and isinstance(tensor.get("name"), str)
    }
    if not tensors:
        raise WorkError(f"the server's answer has no outputs: {_shown(said)}")
    scores = next((_shaped(tensors[name]) for name in (endpoint.outputs, *SCORE_NAMES) if name in tensors), None)
    labels = next((_column(_shaped(tensors[name])) for name in LABEL_NAMES if name in tensors), None)
    if scores is None and labels is None:
        first = next(iter(tensors.values()))
        named = str(first.get("datatype", "")).startswith(NAMES)
        labels, scores = (_column(_shaped(first)), None) if named else _by_form(_shaped(first), endpoint)
    return _indices(labels, endpoint), scores


def _shaped(tensor: Mapping[str, Any]) -> Any:
    """The data of a tensor, flat or nested, in its declared shape."""
    data, shape, name = tensor.get("data"), tensor.get("shape"), tensor["name"][:40]
    if not isinstance(data, list) or not _is_shape(shape):
        raise WorkError(
            f"the tensor {name!r} has no data, or no shape of one or two sides",
            remedy="let the server answer one label, or one row of scores, for each row.",
        )
    array = np.asarray(data, dtype=object)
    if array.size != math.prod(shape):
        raise WorkError(f"the tensor {name!r} has {array.size} values and the shape {shape}")
    return array.reshape(shape).tolist()


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of one or two whole numbers from 0."""
    if not isinstance(shape, list) or not 1 <= len(shape) <= MAX_SIDES:
        return False
    return all(isinstance(side, int) and not isinstance(side, bool) and 0 <= side < 2**53 for side in shape)


def _column(listed: Any) -> Any:
    """Labels as one list, also where each is in a list of its own."""
    return [row[0] for row in listed] if _is_column(listed) else listed


def _is_column(listed: Any) -> bool:
    return bool(listed) and all(isinstance(row, list) and len(row) == 1 for row in listed)


def _read_plain(said: Any, endpoint: Endpoint) -> tuple[Any, Any]:
    """Labels and scores of a plain answer: a list, or an object with a list under a usual key."""
    if isinstance(said, dict):
        keys = (endpoint.outputs,) if endpoint.outputs else ANSWER_KEYS
        said = next((said[key] for key in keys if key in said), None)
    if not isinstance(said, list):
        raise WorkError(f"the server's answer has no list of predictions under {endpoint.outputs or 'a usual key'}")
    if said and all(isinstance(entry, dict) for entry in said):
        return None, [_spread(entry, endpoint) for entry in said]
    labels, scores = _by_form(said, endpoint)
    return _indices(labels, endpoint), scores


def _spread(entry: Mapping[str, Any], endpoint: Endpoint) -> list[float]:
    """Scores of some classes by name; what is left of 1 is shared by the others."""
    known = {name: entry[name] for name in endpoint.classes if name in entry}
    if not known or len(known) != len(entry) or not all(_is_number(value) for value in known.values()):
        raise WorkError(f"a prediction names something that is no class, or gives no score: {_shown(entry)}")
    rest = max(0.0, 1.0 - sum(known.values())) / max(1, len(endpoint.classes) - len(known))
    return [float(known.get(name, rest)) for name in endpoint.classes]


def _by_form(said: Any, endpoint: Endpoint) -> tuple[Any, Any]:
    """Whether a list holds classes or scores, by its form."""
    if not said or not isinstance(said[0], list):
        return said, None
    if not _is_column(said):
        return None, said
    values = _column(said)
    if len(endpoint.classes) == 2 and not any(isinstance(value, str) for value in values):  # noqa: PLR2004 - two classes
        return None, [_pair(value) for value in values]
    broken = any(isinstance(value, float) and not value.is_integer() for value in values)
    return (None, said) if broken else (values, None)


def _pair(chance: Any) -> list[float]:
    """Scores of two classes, of which the second one's is given."""
    if not _is_number(chance):
        raise WorkError(f"the server answers a score that is no number: {_shown(chance)}")
    return [1.0 - chance, float(chance)]


def _is_number(value: Any) -> bool:
    """Whether it is a number that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -MAX_NUMBER < value < MAX_NUMBER


def _indices(labels: Any, endpoint: Endpoint) -> Any:
    """Class names as indices; numbers that are no names are taken for indices."""
    if labels is None:
        return None
    known = {name: index for index, name in enumerate(endpoint.classes)}
    found = []
    for label in labels:
        index = known.get(_text(label))
        if index is None and isinstance(label, int) and not isinstance(label, bool) and not _numeric(known):
            index = label if 0 <= label < len(known) else None
        if index is None:
            raise WorkError(
                f"the server answers a class {_text(label)[:40]!r}, and is declared with {', '.join(known)}",
                remedy="name every class as the server does, in the order of the label values.",
            )
        found.append(index)
    return found


def _text(label: Any) -> str:
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return label if isinstance(label, str) else _shown(label)


def _numeric(known: Mapping[str, int]) -> bool:
    """Whether the classes are called by numbers, so that a number can only be a name."""
    return all(name.lstrip("-").isdigit() for name in known)


def _checked(answer: tuple[Any, Any], rows: int, classes: int, name: str) -> _Answer:
    """Labels and scores as arrays, when they are such as can be true."""
    labels, listed = answer
    scores = None if listed is None else _matrix(listed, rows, classes, name)
    if labels is None:
        assert scores is not None  # noqa: S101 - one of them was found
        return _Answer(scores.argmax(axis=1).astype(np.int64), scores)
    if len(labels) != rows:
        raise WorkError(f"{name} answers {rows} rows with {len(labels)} labels", remedy="see what is in front of it.")
    found = np.asarray(labels, dtype=np.int64)
    if scores is not None and (scores[np.arange(rows), found] < scores.max(axis=1)).any():
        raise WorkError(
            f"{name} answers scores that contradict the label beside them",
            remedy="mend the server: whichever of the two it means, the other one lies.",
        )
    return _Answer(found, scores)


def _matrix(listed: Any, rows: int, classes: int, name: str) -> NDArray[np.float64]:
    try:
        scores = np.asarray(listed, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise WorkError(f"{name} answers scores that are no numbers: {error}") from error
    if scores.shape != (rows, classes):
        raise WorkError(
            f"{name} answers scores {scores.shape} where ({rows}, {classes}) are due",
            remedy="name every class; where only some are scored, ask for labels.",
        )
    off = np.abs(scores.sum(axis=1) - 1) > ROUNDING * classes
    if not np.isfinite(scores).all() or (scores < 0).any() or (scores > 1).any() or off.any():
        raise WorkError(
            f"{name} answers scores that are no probabilities", remedy="let the server answer probabilities, or labels."
        )
    return scores


# ---- the wire


class _Wire:
    """Requests over one kept connection, sent again where that may help."""

    def __init__(self, endpoint: Endpoint, sleep: Callable[[float], None]) -> None:
        parts = urlsplit(endpoint.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise InputError(f"{endpoint.url[:200]!r} is no address of a model", remedy="give http://HOST:PORT/PATH.")
        self.path = parts.path.rstrip("/") or "/"
        self._query = f"?{parts.query}" if parts.query else ""
        if not re.fullmatch(r"[!-~]+", self.path + self._query):
            raise InputError(
                f"{endpoint.url[:200]!r} holds letters that no address may", remedy="write them as %20 and the like."
            )
        self._endpoint, self._sleep = endpoint, sleep
        self._host, self._secure = parts.hostname, parts.scheme == "https"
        try:
            self._port = parts.port or (443 if self._secure else 80)
        except ValueError as error:
            raise InputError(f"{endpoint.url[:200]!r}: {error}") from error
        self._address = _address(self._host, self._port, allow_remote=endpoint.allow_remote)
        self._connection: http.client.HTTPConnection | None = None
        self._timed: Any = None

    def exchange(self, method: str, path: str, body: bytes, charge: Callable[[bool], None]) -> bytes:
        """Send a request until it is answered, and charge it each time.

        Raises:
            WorkError: there is no answer, or it is a refusal.
        """
        waited, failures, limited, again = 0.0, 0, 0, False
        while True:
            charge(again)
            again = True
            try:
                status, headers, data = self._once(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                failures += 1
                if failures > self._endpoint.retries:
                    raise WorkError(
                        f"{self._endpoint.url} does not answer ({failures} attempts): {_reason(error)}",
                        remedy="see that the server runs, or give it more time.",
                    ) from error
                self._sleep(_growing(failures))
                continue
            if status == http.HTTPStatus.OK:
                return data
            if status == LIMITED:
                limited += 1
                pause = max(_pause(headers), _growing(limited))
                waited += pause
                if waited > self._endpoint.patience:
                    raise WorkError(
                        f"{self._endpoint.url} lets this role ask again in {pause:g} s only ({limited} times refused)",
                        remedy="come back later, or ask with a role that may ask more often.",
                    )
                self._sleep(pause)
                continue
            failures += 1
            if status not in RETRIED or failures > self._endpoint.retries:
                raise WorkError(
                    f"{self._endpoint.url} refuses with status {status}: {_words(data)}",
                    remedy="see that address, protocol and features are those of the served model.",
                )
            self._sleep(_growing(failures))

    def _once(self, method: str, path: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        deadline = time.monotonic() + self._endpoint.seconds
        connection = self._connected(deadline)
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self._endpoint.headers}
        connection.request(method, path + self._query, body or None, headers)
        response = connection.getresponse()
        data = response.read(MAX_ANSWER_BYTES + 1)
        if len(data) > MAX_ANSWER_BYTES:
            self.close()
            raise WorkError(f"{self._endpoint.url} answers with more than {MAX_ANSWER_BYTES} bytes")
        if response.will_close:
            self.close()
        return response.status, {key.lower(): value for key, value in response.getheaders()}, data

    def _connected(self, deadline: float) -> http.client.HTTPConnection:
        if self._connection is None:
            made = http.client.HTTPConnection(self._host, self._port, timeout=self._endpoint.seconds)
            raw = socket.create_connection(self._address, timeout=_left(deadline))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secure:
                raw.settimeout(_left(deadline))
                raw = ssl.create_default_context().wrap_socket(raw, server_hostname=self._host)
            self._timed = _Timed(raw)
            made.sock = self._timed
            self._connection = made
        self._timed.deadline = deadline
        return self._connection

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Timed:
    """A socket whose reading and writing together end at one deadline, not each by itself."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self.deadline = math.inf

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        left = memoryview(data)
        while left:
            self._raw.settimeout(_left(self.deadline))
            left = left[self._raw.send(left) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        """A stream to read the answer from; it keeps the socket open until it is closed itself."""
        del mode
        return io.BufferedReader(_Stream(self._raw, self))

    def close(self) -> None:
        """Let go of the socket once no stream reads from it."""
        self._raw.close()


class _Stream(io.RawIOBase):
    """Bytes from a socket, for as long as its deadline lets them come."""

    def __init__(self, raw: socket.socket, timed: _Timed) -> None:
        self._socket, self._timed = raw, timed
        self._bytes = raw.makefile("rb", buffering=0)

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Read what is there. Raises TimeoutError at the deadline."""
        self._socket.settimeout(_left(self._timed.deadline))
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._bytes.close()
        super().close()


def _left(deadline: float) -> float:
    """Seconds until a deadline. Raises TimeoutError when it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the answer takes longer than a request may")
    return left


def _growing(times: int) -> float:
    """Shortest pause in seconds after so many failures or refusals."""
    return min(FIRST_PAUSE * 2.0 ** (times - 1), MAX_PAUSE)


def _address(host: str, port: int, *, allow_remote: bool) -> tuple[str, int]:
    """The address to connect to. Raises InputError when the host is remote without leave or unknown."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"no host is called {host[:100]!r}: {error}", remedy="mend the address.") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not allow_remote and not all(ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in addresses):
        raise InputError(
            f"{host} is another machine, and attacks ask this one only",
            remedy="if its owner agreed to be attacked, say so: --allow-remote.",
        )
    return addresses[0], port


def _pause(headers: Mapping[str, str]) -> float:
    """Seconds until a server may be asked again, as it says; one second when it does not."""
    for name in ("retry-after", "ratelimit-reset", "x-ratelimit-reset"):
        text = headers.get(name, "").strip()
        if not text:
            continue
        try:
            seconds = float(text)
        except ValueError:
            moment = email.utils.parsedate_to_datetime(text) if name == "retry-after" and _is_date(text) else None
            seconds = moment.timestamp() - time.time() if moment else 1.0
        if seconds > 1e9:  # noqa: PLR2004 - a time of day instead of a span
            seconds -= time.time()
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), MAX_PAUSE)
    return 1.0


def _is_date(text: str) -> bool:
    return email.utils.parsedate_tz(text) is not None


def _words(data: bytes) -> str:
    """The beginning of somebody else's words, safe to show."""
    text = data[:MAX_WORDS].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text) or "nothing"


def _shown(said: Any) -> str:
    """The beginning of what a server said, safe to show."""
    try:
        return _words(msgspec.json.encode(said))
    except (OverflowError, ValueError, RecursionError):
        return "a number that is too long"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def endpoint_headers(pairs: Sequence[str]) -> dict[str, str]:
    """Headers from ``Name: value`` texts.

    Raises:
        InputError: one of them is none.
    """
    found = {}
    for pair in pairs:
        name, colon, value = pair.partition(":")
        sound = re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name.strip(), re.ASCII) and value.isprintable() and value.isascii()
        if not colon or not sound:
            raise InputError(f"{name[:40]!r} is no header", remedy="write 'Name: value'.")
        found[name.strip()] = value.strip()
    return found
