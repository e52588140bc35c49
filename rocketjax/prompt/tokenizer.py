"""Text to token ids, for text that nobody vouches for.

A judge reads answers written by strangers, so a delimiter that stands in a text must stay text. A vocabulary
entry that is *reserved* is therefore out of the encoder's reach; a caller that means it asks for it by name.
Reserved are

- entries that the file marks as control, special, unknown or unused, and the begin, end and padding tokens;
- entries that the file wants matched in raw text (added or user-defined tokens), unless they are plainly
  text: white space, one character, an HTML tag, or free of the brackets and bars that delimiters are made of.

Gemma's vocabulary shows why: `<start_of_turn>` and `<unused7>` may be matched in raw text, and so may runs of
newlines and `<table>`, which its owner's tokenizer does match in every text.
"""

import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rocketjax.errors import RocketError
from rocketjax.prompt.gguf_file import read_gguf

HTML_TAG = re.compile(
    r"</?(a|b|bbox|blockquote|body|caption|code|div|em|footer|h[1-6]|html|i|iframe|img|li|s|span|strong|sub|sup"
    r"|table|tbody|td|tfoot|th|thead|tr|u|ul)>"
)  # those of Gemma's vocabulary; a general pattern would take <mask> for one
BRACKETS = re.compile(r"[<>\[\]{}|\uff5c]")  # the last is the full-width bar of DeepSeek's delimiters

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # the numbers of SentencePiece and of GGUF

MOST_ENTRIES = 1 << 24  # of a vocabulary; the largest in use have 2 ** 18

# How a BPE cuts text into words before merging, by GGUF's name for it. Expressions and steps are those of the
# owners' tokenizer.json (SmolLM2, Llama 3, Qwen 2.5, GPT-2).
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def _words(*steps: dict[str, Any], regex: bool = True) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [*steps, {**_BYTES, "use_regex": regex}]}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "gpt2": {**_BYTES, "use_regex": True},
    "gpt-2": {**_BYTES, "use_regex": True},
    "smollm": _words({"type": "Digits", "individual_digits": True}),
    "llama-bpe": _words(_split(_LLAMA3), regex=False),
    "qwen2": _words(_split(_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")), regex=False),
}


class Piece(NamedTuple):
    """A vocabulary entry as SentencePiece and GGUF keep it."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """One judge's tokenizer.

    `bos` is the id that every prompt starts with, None where the model uses none. `chat_template` is the text
    that the files carry, to recognise the format by; it is never run. `sha256` is of what decides the ids
    (entries, merges or scores, what is reserved, how words are cut, BOS), whichever file it came in.
    `texts` are the bytes that each id stands for, the name of a reserved one, nothing for a hole.
    """

    bos: int | None
    vocab_size: int
    chat_template: str | None
    sha256: str
    texts: Sequence[bytes]
    reserved: dict[str, int]  # names that text can never produce
    native: Callable[[list[str]], list[list[int]]]
    file: tuple[str, Callable[[], bytes]]  # name and content of the file that holds it in a folder

    def encode(self, text: str) -> list[int]:
        """The ids of this text: no BOS, nothing added, no reserved entry. Raises as `encode_batch`.

        As in the owners' tokenizers, a character for which a byte-level vocabulary has no entry falls out
        (SmolLM2 lacks six control characters and U+40000 to U+BFFFF), and becomes the unknown entry where a
        SentencePiece vocabulary has no bytes to fall back on (Gemma's has).
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts, on as many threads as the library takes.

        Raises RocketError for a text with a lone surrogate, which UTF-8 has no bytes for.
        """
        for number, text in enumerate(texts):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise RocketError(f"text {number} has a lone surrogate at character {error.start}") from None
        return self.native(list(texts)) if texts else []

    def special(self, name: str) -> int:
        """The id of a reserved entry, such as `<|im_start|>`. Raises RocketError where there is none."""
        if name not in self.reserved:
            raise RocketError(f"the judge's vocabulary has no special token {name!r}")
        return self.reserved[name]

    def has_special(self, name: str) -> bool:
        """Whether `special` knows this name."""
        return name in self.reserved

    def decode(self, ids: Sequence[int]) -> str:
        """The text of these ids, reserved ones as their names; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.texts[i] for i in ids).decode(errors="replace")

    def token_text(self, token: int) -> str:
        """The text that one entry stands for, with its leading space; for a reserved one its name."""
        return self.decode([token])

    def save(self, folder: Path) -> None:
        """Writes the files from which `load_tokenizer` makes this tokenizer again."""
        name, content = self.file
        (folder / name).write_bytes(content())
        bos = None if self.bos is None else self.decode([self.bos])
        config = {"bos_token": bos, "add_bos_token": bos is not None, "chat_template": self.chat_template}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")

    def answer_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """All entries that say yes, and all that say no, whatever their case and the white space around them.

        Raises RocketError where the vocabulary has no such entry for either.
        """
        ours = {b"yes": list[int](), b"no": list[int]()}
        reserved = set(self.reserved.values())
        for i, text in enumerate(self.texts):
            word = text.strip().lower()
            if word in ours and i not in reserved:
                ours[word].append(i)
        for word, ids in ours.items():
            if not ids:
                raise RocketError(f"this vocabulary cannot answer: no single token says {word.decode()!r}")
        return tuple(ours[b"yes"]), tuple(ours[b"no"])


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a `.gguf` file, or in a Hugging Face folder (tokenizer.json, else tokenizer.model).

    Raises RocketError where there is none, or a broken one, or one of a kind not known here.
    """
    try:
        return _load(Path(path))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        # the files are JSON of any shape; what does not fit fails somewhere below
        raise RocketError(f"{path}: its tokenizer cannot be read ({error!r})") from error


def _load(path: Path) -> Tokenizer:
    if path.is_file():
        return _from_gguf(path)
    config = _read_json(path / "tokenizer_config.json") if (path / "tokenizer_config.json").exists() else {}
    template = config.get("chat_template")
    if isinstance(template, list):  # several named ones
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    if (path / "chat_template.jinja").exists():
        template = (path / "chat_template.jinja").read_text()
    bos = config.get("bos_token")
    bos = bos["content"] if isinstance(bos, dict) else bos
    if (path / "tokenizer.json").exists():
        spec = _read_json(path / "tokenizer.json")
        first = _first_added(spec)
        adds = config.get("add_bos_token", first is not None)
        return _from_json(spec, (bos or first) if adds else None, template)
    if (path / "tokenizer.model").exists():
        pieces, rules = _read_model((path / "tokenizer.model").read_bytes())
        for key, token in config.get("added_tokens_decoder", {}).items():
            _add_piece(pieces, int(key), token["content"], CONTROL if token["special"] else USER_DEFINED)
        # Llama and Gemma add BOS unless they say otherwise
        return _from_pieces(pieces, rules, bos if config.get("add_bos_token", True) else None, template)
    raise RocketError(f"{path}: holds neither tokenizer.json nor tokenizer.model, and is no .gguf file")


def _is_text(piece: str) -> bool:
    """Whether an entry that wants to be matched in raw text may be: the second rule at the top."""
    blank = not piece.replace("▁", " ").strip()
    return blank or len(piece) == 1 or bool(HTML_TAG.fullmatch(piece)) or not BRACKETS.search(piece)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RocketError(f"{path}: is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise RocketError(f"{path}: is not a JSON object")
    return value


# BPE, encoded by `tokenizers`


def _first_added(spec: dict[str, Any]) -> str | None:
    """The token that this tokenizer.json puts before every text."""
    post = spec.get("post_processor") or {}
    for step in post.get("processors", [post]):
        match step:
            case {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": str(name)}}, *_]}:
                return name
    return None


def _from_json(spec: dict[str, Any], bos: str | None, chat_template: str | None) -> Tokenizer:
    """A tokenizer.json, with its reserved entries out of the encoder's reach."""
    from tokenizers import Tokenizer as Native

    model = spec["model"]
    if model.get("type", "BPE") != "BPE":
        raise RocketError(f"tokenizer.json is a {model['type']}; the judges known here use BPE")
    added = {token["content"]: token for token in spec.get("added_tokens", [])}
    ids = {**model["vocab"], **{text: token["id"] for text, token in added.items()}}
    reserved = {text: token["id"] for text, token in added.items() if token["special"] or not _is_text(text)}
    if not all(0 <= i < MOST_ENTRIES for i in ids.values()):
        raise RocketError(f"tokenizer.json has ids outside of 0 to {MOST_ENTRIES - 1}")
    if bos is not None and bos not in ids:
        raise RocketError(f"the tokenizer's BOS {bos!r} is not in its vocabulary")
    for text in (bos, model.get("unk_token")):
        if text is not None:
            reserved[text] = ids[text]
    # A merge could still spell a reserved entry, or a byte's, from ordinary pieces.
    spelled = {f"<0x{byte:02X}>" for byte in range(256)} if model.get("byte_fallback") else set()
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    merges = [(a, b) for a, b in merges if not ({a, b, a + b} & reserved.keys()) and a + b not in spelled]
    lost = reserved.keys() - {model.get("unk_token")}
    encoder = {
        **spec,
        "added_tokens": [token for text, token in added.items() if text not in reserved],
        "model": {
            **model,
            "vocab": {text: i for text, i in ids.items() if text not in lost},
            "merges": merges,
        },
        "truncation": None,
        "padding": None,
    }
    try:
        native = Native.from_str(json.dumps(encoder))
    except Exception as error:  # the library raises nothing narrower
        raise RocketError(f"tokenizer.json cannot be used: {error}") from error

    def encode(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in native.encode_batch_fast(texts, add_special_tokens=False)]

    byte_level = '"ByteLevel"' in json.dumps([spec.get("pre_tokenizer"), spec.get("decoder")])
    texts = [b""] * (max(ids.values()) + 1)
    for text, i in ids.items():
        if text in reserved or (byte_level and text in added):
            texts[i] = text.encode()
        else:
            texts[i] = _unmap(text) if byte_level else _unescape(text, BYTE if text in spelled else NORMAL)
    words = json.loads(re.sub(r', "trim_offsets": \w+', "", json.dumps(spec.get("pre_tokenizer"))))
    entries = sorted((i, text, text in reserved) for text, i in ids.items())
    rules = [spec.get("normalizer"), words, bool(model.get("ignore_merges")), bos]
    sha256 = _digest("bpe", entries, merges, rules)
    first = None if bos is None else ids[bos]
    file = ("tokenizer.json", lambda: json.dumps(spec, ensure_ascii=False).encode())
    return Tokenizer(first, len(texts), chat_template, sha256, texts, reserved, encode, file)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte, and the byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(rest)}


_ALPHABET = _byte_alphabet()


def _unmap(piece: str) -> bytes:
    try:
        return bytes(_ALPHABET[char] for char in piece)
    except KeyError:  # an entry that is not in the byte alphabet is plain text
        return piece.encode()


def _unescape(piece: str, kind: int) -> bytes:
    return bytes([int(piece[3:5], 16)]) if kind == BYTE else piece.replace("▁", " ").encode()


# SentencePiece. Its model is a protocol buffer, of which four fields matter; written here by hand because the
# generated classes need a version of `protobuf` at least as new as the one that generated them.


# Which fields of the trainer's (2) and normaliser's (3) messages decide the ids, and their defaults:
# model_type, treat_whitespace_as_suffix, byte_fallback; precompiled_charsmap, add_dummy_prefix,
# remove_extra_whitespaces, escape_whitespaces.
_DECIDES: dict[int, dict[int, int | bytes]] = {2: {3: 1, 24: 0, 35: 0}, 3: {2: b"", 3: 1, 4: 1, 5: 1}}


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _entry(piece: Piece) -> bytes:
    """Field 1 of a model: a message of text (1), score (2, four bytes) and kind (3)."""
    numbers = struct.pack("<BfBB", 2 << 3 | 5, piece.score, 3 << 3, piece.kind)
    return _field(1, _field(1, piece.text.encode()) + numbers)


def _fields(data: bytes) -> Iterator[tuple[int, float | bytes]]:
    """Field numbers and values of one message, strings and inner messages as bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                return value

    while at < len(data):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            yield number, varint()
        elif wire == 2:
            size = varint()
            at += size
            if at > len(data):
                raise IndexError("a field ends after the file")
            yield number, data[at - size : at]
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            at += size
            yield number, struct.unpack("<d" if wire == 1 else "<f", data[at - size : at])[0]
        else:
            raise ValueError(f"wire type {wire}")


def _read_model(data: bytes) -> tuple[list[Piece], bytes]:
    """The pieces of a tokenizer.model, and its trainer's and normaliser's fields as they stand."""
    pieces, rules = [], dict[int, bytes]()
    try:
        for number, value in _fields(data):
            if number == 1 and isinstance(value, bytes):
                entry = dict(_fields(value))
                text, score, kind = entry[1], entry.get(2, 0.0), entry.get(3, NORMAL)
                assert isinstance(text, bytes) and isinstance(score, float) and isinstance(kind, int)
                pieces.append(Piece(text.decode(), score, kind))
            elif number in (2, 3, 5) and isinstance(value, bytes):
                rules[number] = _field(number, value)
        if not {2, 3} <= rules.keys():
            raise ValueError("the rules after the pieces are missing")
    except (IndexError, KeyError, ValueError, AssertionError, struct.error) as error:
        raise RocketError(f"tokenizer.model is no SentencePiece model: {error!r}") from None
    return pieces, b"".join(rules.values())


def _add_piece(pieces: list[Piece], i: int, text: str, kind: int) -> None:
    """Puts an added token of tokenizer_config.json into the list, in its place or at the end."""
    if i > len(pieces):
        raise RocketError(f"tokenizer_config.json adds {text!r} as {i}, after a gap from {len(pieces)}")
    old = pieces[i].kind if i < len(pieces) else NORMAL
    pieces[i : i + 1] = [Piece(text, 0.0, old if old in (UNKNOWN, CONTROL) else kind)]


def _from_pieces(entries: Iterable[Piece], rules: bytes, bos: str | None, chat_template: str | None) -> Tokenizer:
    """A SentencePiece model with its reserved entries turned into control pieces, which text never yields."""
    from sentencepiece import SentencePieceProcessor

    pieces: list[Piece] = []
    for text, score, kind in entries:
        if text == bos or (kind == USER_DEFINED and not _is_text(text)):
            kind = CONTROL
        pieces.append(Piece(text, score if kind == NORMAL else 0.0, kind))  # no other score decides anything
    reserved = {p.text: i for i, p in enumerate(pieces) if p.kind in (UNKNOWN, CONTROL, UNUSED)}
    if bos is not None and bos not in reserved:
        raise RocketError(f"the tokenizer's BOS {bos!r} is not in its vocabulary")

    def model() -> bytes:
        return b"".join(map(_entry, pieces)) + rules

    native = SentencePieceProcessor()
    try:
        native.LoadFromSerializedProto(model())
    except Exception as error:  # the library raises nothing narrower
        raise RocketError(f"the SentencePiece vocabulary cannot be used: {error}") from error

    def encode(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = native.encode(texts, out_type=int)
        return ids

    texts = [p.text.encode() if p.text in reserved else _unescape(p.text, p.kind) for p in pieces]
    fields = {number: dict(_fields(value)) for number, value in _fields(rules) if isinstance(value, bytes)}
    decides = [repr(fields.get(n, {}).get(k, v)) for n, known in _DECIDES.items() for k, v in known.items()]
    sha256 = _digest("sentencepiece", pieces, decides, bos)
    first = None if bos is None else reserved[bos]
    return Tokenizer(first, len(pieces), chat_template, sha256, texts, reserved, encode, ("tokenizer.model", model))


# GGUF


def _from_gguf(path: Path) -> Tokenizer:
    meta = read_gguf(path).metadata
    ours = {key.removeprefix("tokenizer.ggml."): value for key, value in meta.items()}
    kind, pre = ours.get("model"), ours.get("pre")
    if kind not in ("gpt2", "llama", "gemma"):
        raise RocketError(f"{path}: has a tokenizer of model {kind!r}; known are gpt2, llama and gemma")
    tokens, kinds = ours.get("tokens", []), ours.get("token_type", [])
    if not tokens or len(kinds) != len(tokens):
        raise RocketError(f"{path}: has {len(tokens)} tokens and {len(kinds)} token types")
    named = {key: ours.get(f"{key}_token_id") for key in ("bos", "eos", "eot", "unknown", "padding")}
    for key, i in named.items():
        if i is not None and i >= len(tokens):
            raise RocketError(f"{path}: has its {key} token at {i}, past its {len(tokens)} tokens")
        if i is not None:
            kinds[i] = UNKNOWN if key == "unknown" and kind != "gpt2" else CONTROL
    adds = ours.get("add_bos_token", kind != "gpt2" or pre == "llama-bpe")  # llama.cpp's defaults
    bos = tokens[named["bos"]] if adds and named["bos"] is not None else None
    template = meta.get("tokenizer.chat_template")

    if kind == "gpt2":
        if pre not in PRE_TOKENIZERS:
            raise RocketError(f"{path}: cuts words as {pre!r}; known are {', '.join(PRE_TOKENIZERS)}")
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        vocab = {text: i for i, text in enumerate(tokens)}
        model = {"type": "BPE", "merges": ours.get("merges", []), "ignore_merges": pre == "llama-bpe"}
        spec = {
            "version": "1.0",
            "added_tokens": [
                {"id": i, "content": text, "special": kinds[i] != USER_DEFINED, **flags}
                for text, i in vocab.items()
                if kinds[i] != NORMAL
            ],
            "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
            "pre_tokenizer": PRE_TOKENIZERS[pre],
            "decoder": None,
            "model": {**model, "vocab": {text: i for text, i in vocab.items() if kinds[i] == NORMAL}},
        }
        return _from_json(spec, bos, template)

    scores = ours.get("scores", [])
    if len(scores) != len(tokens):
        raise RocketError(f"{path}: has {len(tokens)} tokens and {len(scores)} scores")
    # A run of spaces that is matched in raw text stands there as spaces; SentencePiece writes them as ▁.
    texts = (t.replace(" ", "▁") if k == USER_DEFINED else t for t, k in zip(tokens, kinds, strict=True))
    prefix = int(ours.get("add_space_prefix", True))
    trainer = _field(3, 2) + _field(35, 1)  # model_type BPE, byte_fallback
    # name, add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces
    normaliser = _field(1, b"identity") + _field(3, prefix) + _field(4, 0) + _field(5, 1)
    rules = _field(2, trainer) + _field(3, normaliser)
    return _from_pieces(map(Piece, texts, scores, kinds), rules, bos, template)
