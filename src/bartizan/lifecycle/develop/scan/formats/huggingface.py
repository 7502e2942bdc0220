"""Configurations of models: Hugging Face, sentence-transformers, diffusers, PEFT, and whoever builds from names.

All maps of a document are looked at, whatever the file is called, because the same keys stand in
``config.json``, ``tokenizer_config.json``, ``adapter_config.json`` and inside one another. A value counts
only when it has the type that the library expects, so that a word list with such a word is nothing.

Sources: ``transformers.dynamic_module_utils`` (``auto_map``, ``repo--module.Class``), ``diffusers``
``pipeline_loading_utils``, ``sentence_transformers.util.import_from_string``, ``peft.auto``, Hydra's
``_target_`` and Lightning's ``class_path``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from bartizan.lifecycle.develop.scan import registry
from bartizan.lifecycle.develop.scan.formats.characters import invisible
from bartizan.lifecycle.develop.scan.formats.import_paths import harm_of, is_dotted
from bartizan.lifecycle.develop.scan.source import Draft, Source

MOST_NODES = 2_000_000
FOREIGN = "--"
LIBRARIES = re.compile(
    r"(?:diffusers|transformers|sentence_transformers|torch|peft|timm|optimum|onnxruntime|flax|accelerate|tokenizers|"
    r"open_clip|pylate|__main__)(?:\.\w+)*"
)
SENTENCE = re.compile(r"(?:sentence_transformers|pylate|torch\.nn|transformers)(?:\.\w+)+")
PIPELINES = re.compile(
    r"(?:stable_|kandinsky|wuerstchen|deepfloyd|latent_|paint_by|alt_|versatile|unclip|unidiffuser|audioldm|musicldm|"
    r"semantic_|shap_e|blip_|kolors|hunyuan|pixart|lumina|cogv|flux|sana|allegro|ltx|mochi|aura_|stable|if|k_diffusion|"
    r"controlnet|pag|text_to_video|i2vgen|pia|ledits|marigold|amused|dance_|consistency|ddim|ddpm|dit|easyanimate|wan|"
    r"qwenimage|hidream|chroma|bria|omnigen|visualcloze|cosmos|skyreels|framepack|spectrogram)\w*"
)
"""Folders of diffusers that model_index.json may name."""
PLACE_KEYS = frozenset(
    {"_name_or_path", "name_or_path", "base_model_name_or_path", "tokenizer_name_or_path", "model_name_or_path"}
)
LOADED_KEYS = PLACE_KEYS - {"_name_or_path", "name_or_path"}
TARGET_KEYS = frozenset({"_target_", "class_path"})
STRING_IMPORTS = frozenset({"activation_function", "activation_fn", "sbert_ce_default_activation_function"})
_ADDRESS = re.compile(r"(?:https?|ftp|file|smb|s3|gs|ssh|git)(?:\+\w+)?:/|\\\\|//")
_SYSTEM = re.compile(r"/(?:etc|proc|dev|sys|root|boot|var/run)(?:/|$)|~|(?:\.\./){2,}\w*|.*\.\.[/\\]\.\.")
JUDGED = PLACE_KEYS | TARGET_KEYS | STRING_IMPORTS | {"auto_map", "custom_pipelines", "chat_template", "auto_mapping"}
"""Keys whose values have to be read even when they are long."""


def maps_of(document: Any) -> Iterator[dict[str, Any]]:
    """All maps in a document, outermost first; each shared part once."""
    todo, seen, count = [document], set[int](), 0
    while todo and count < MOST_NODES:
        value = todo.pop()
        count += 1
        if not isinstance(value, dict | list) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            yield value
        todo.extend(value.values() if isinstance(value, dict) else value)


def judge(source: Source, draft: Draft, document: Any) -> None:
    """Judge all maps of a document, and what its outermost value is as a whole."""
    for found in maps_of(document):
        for key in JUDGES.keys() & found.keys():
            JUDGES[key](draft, key, found[key], found)
    if isinstance(document, list):
        _judge_modules(draft, document)
    elif isinstance(document, dict):
        if "_class_name" in document and source.depth >= 0:
            _judge_pipeline(draft, document)
        _judge_router(draft, document)


def _auto_map(draft: Draft, key: str, value: Any, _whole: dict[str, Any]) -> None:
    """``{"AutoModel": "module.Class"}``, or ``"repo--module.Class"``, or lists of both."""
    classes = [each for item in (value.values() if isinstance(value, dict) else [value]) for each in _texts(item)]
    for named in classes:
        shown = f"{key} names {named[:120]!r}"
        if FOREIGN in named:
            draft.fire("repository/foreign-code", shown)
        elif "/" in named or "\\" in named or ".." in named:
            draft.fire("repository/traversal", shown)
        else:
            draft.fire("repository/remote-code", shown)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _custom_pipelines(draft: Draft, key: str, value: Any, whole: dict[str, Any]) -> None:
    for task in value.values() if isinstance(value, dict) else ():
        implementation = task.get("impl") if isinstance(task, dict) else None
        if isinstance(implementation, str):
            _auto_map(draft, key, implementation, whole)


def _generate(draft: Draft, key: str, value: Any, _whole: dict[str, Any]) -> None:
    if isinstance(value, str) and value:
        draft.fire("repository/foreign-code", f"{key} names {value[:120]!r}")


def _flag(draft: Draft, key: str, value: Any, _whole: dict[str, Any]) -> None:
    is_off = value is (key != "weights_only") or value == str(key != "weights_only").lower()
    if is_off:
        draft.fire("repository/trust-flag", f"{key} is {value}")


def _place(draft: Draft, key: str, value: Any, _whole: dict[str, Any]) -> None:
    """An address or share; for what is really loaded, system folders and ways out of the folder too."""
    if not isinstance(value, str):
        return
    if _ADDRESS.match(value) or (key in LOADED_KEYS and _SYSTEM.match(value)):
        draft.fire("repository/place", f"{key} is {value[:120]!r}")


def _target(draft: Draft, key: str, value: Any, whole: dict[str, Any]) -> None:
    """The dotted name of what is to be built. ``target`` counts only beside ``params``."""
    if not isinstance(value, str) or (key == "target" and "params" not in whole):
        return
    path = value.replace(":", ".")
    harm = harm_of(path) if is_dotted(path) else ""
    if harm or path in {"eval", "exec", "compile", "__import__", "open"}:
        draft.fire("config/import", f"{key} is {value[:120]!r}, which {harm or 'runs code from text'}")


def _string_import(draft: Draft, key: str, value: Any, _whole: dict[str, Any]) -> None:
    if is_dotted(value):
        _import(draft, key, value, SENTENCE)


def _import(draft: Draft, key: str, value: str, fine: re.Pattern[str]) -> None:
    harm = harm_of(value) if is_dotted(value) else harm_of(f"{value}.any")
    if harm:
        draft.fire("config/import", f"{key} is {value[:120]!r}, which {harm}")
    elif not fine.fullmatch(value):
        draft.fire("repository/foreign-class", f"{key} is {value[:120]!r}")


def _auto_mapping(draft: Draft, _key: str, value: Any, _whole: dict[str, Any]) -> None:
    parent = value.get("parent_library") if isinstance(value, dict) else None
    if isinstance(parent, str):
        _import(draft, "parent_library", parent, LIBRARIES)


def _chat_template(draft: Draft, key: str, value: Any, _whole: dict[str, Any]) -> None:
    """One template, or several with names."""
    named = value.items() if isinstance(value, dict) else [(key, value)]
    if isinstance(value, list):
        named = [(str(each.get("name")), each.get("template")) for each in value if isinstance(each, dict)]
    for name, text in named:
        if isinstance(text, str):
            judge_template_text(draft, text, f"{key} {name[:40]!r}")


def judge_template_text(draft: Draft, text: str, where: str) -> None:
    """One chat template; see ``templates.judge_template``."""
    for rule_id, detail in registry.load("formats.templates:judge_template")(text):
        draft.fire(rule_id, f"{where}: {detail}")
    if (hidden := invisible(text)) is not None:
        draft.fire("text/invisible", f"{where}: U+{ord(hidden):04X} is not shown")


def _prompt(draft: Draft, key: str, value: Any, whole: dict[str, Any]) -> None:
    """A saved prompt that is rendered by Jinja (CVE-2023-36281)."""
    if value == "jinja2" and isinstance(whole.get("template"), str):
        _chat_template(draft, key, whole["template"], whole)


def _weight_map(draft: Draft, key: str, value: Any, _whole: dict[str, Any]) -> None:
    """Shards by tensor; each has to lie in the folder of the index."""
    shards = {each for each in value.values() if isinstance(each, str)} if isinstance(value, dict) else set[str]()
    for shard in sorted(shards):
        if leaves_folder(shard):
            draft.fire("repository/traversal", f"{key} names {shard[:120]!r}")


def leaves_folder(name: str) -> bool:
    """Whether a relative file name is none, or leads out of its folder on some system."""
    parts = name.replace("\\", "/").split("/")
    return name.startswith(("/", "\\", "~")) or ".." in parts or ":" in parts[0] or "\x00" in name


def _pickled(draft: Draft, key: str, value: Any, _whole: dict[str, Any]) -> None:
    """What jsonpickle obeys when it decodes."""
    if isinstance(value, str | list | dict):
        draft.fire("config/import", f"{key} is {str(value)[:120]!r}, which jsonpickle imports or calls")


def _serialised(draft: Draft, key: str, _value: Any, whole: dict[str, Any]) -> None:
    """What langchain's ``load`` imports and calls: ``{"lc": 1, "type": "constructor", "id": [module ..., class]}``.

    Texts that come back as such maps have made it construct what others chose (CVE-2025-68664).
    """
    named = whole.get("id")
    if whole.get("type") != "constructor" or not isinstance(named, list) or not all(isinstance(n, str) for n in named):
        return
    path = ".".join(named)
    harm = harm_of(path) if is_dotted(path) else "is no name of a class"
    if harm:
        draft.fire("config/import", f"{key} constructs {path[:120]!r}, which {harm}")
    elif not path.startswith(("langchain", "langgraph")):
        draft.fire("repository/foreign-class", f"{key} constructs {path[:120]!r}")


def _judge_modules(draft: Draft, document: list[Any]) -> None:
    """``modules.json`` of sentence-transformers: a list of steps with a class each."""
    for step in document:
        if isinstance(step, dict) and isinstance(step.get("type"), str) and "path" in step:
            if is_dotted(step["type"]):
                _import(draft, "type", step["type"], SENTENCE)
            if isinstance(step["path"], str) and leaves_folder(step["path"]):
                draft.fire("repository/traversal", f"path is {step['path'][:120]!r}")


def _judge_router(draft: Draft, document: dict[str, Any]) -> None:
    types = document.get("types")
    if isinstance(types, dict) and "structure" in document:
        for value in types.values():
            if is_dotted(value):
                _import(draft, "types", value, SENTENCE)


def _judge_pipeline(draft: Draft, document: dict[str, Any]) -> None:
    """``model_index.json`` of diffusers: parts as ``[library, class]``."""
    if isinstance(document["_class_name"], list):
        draft.fire("repository/remote-code", f"_class_name is {document['_class_name']!r:.120}")
    for key, value in document.items():
        is_part = isinstance(value, list) and len(value) == 2 and not key.startswith("_")  # noqa: PLR2004 -- library, class
        if is_part and all(isinstance(each, str) for each in value) and value[1][:1].isupper():
            library = value[0]
            if not PIPELINES.fullmatch(library):
                _import(draft, key, library, LIBRARIES)


JUDGES: dict[str, Callable[[Draft, str, Any, dict[str, Any]], None]] = {
    "auto_map": _auto_map,
    "custom_pipelines": _custom_pipelines,
    "custom_generate": _generate,
    "trust_remote_code": _flag,
    "allow_pickle": _flag,
    "allow_dangerous_deserialization": _flag,
    "weights_only": _flag,
    **dict.fromkeys(PLACE_KEYS, _place),
    **dict.fromkeys((*TARGET_KEYS, "target"), _target),
    **dict.fromkeys(STRING_IMPORTS, _string_import),
    "auto_mapping": _auto_mapping,
    **dict.fromkeys(("chat_template", "default_chat_template"), _chat_template),
    "template_format": _prompt,
    "lc": _serialised,
    "weight_map": _weight_map,
    **dict.fromkeys(("py/object", "py/reduce", "py/function", "py/type", "py/repr", "py/newargs"), _pickled),
}
"""What judges the value of a key: gets the draft, the key, the value and the map around it."""

__all__ = ["JUDGED", "judge", "judge_template_text", "leaves_folder", "maps_of"]
