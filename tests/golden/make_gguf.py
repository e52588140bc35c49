"""The tiny models as GGUF files, in the conventions of llama.cpp's converter.

    pip install gguf==0.19.0 safetensors==0.8.0 tokenizers==0.23.3 sentencepiece==0.2.3
    python tests/golden/make_gguf.py [NAME ...]     # after make_golden.py tiny; all, or those named

writes tiny_llama.gguf, tiny_llama3.gguf, tiny_qwen2.gguf, tiny_qwen3.gguf, tiny_gemma2.gguf and tiny_gemma3.gguf
(f32), tiny_llama_untied_q8_0.gguf, tiny_qwen2_q8_0.gguf, tiny_gemma2_q8_0.gguf and tiny_gemma3_q8_0.gguf. The
conventions: Llama's query and key rows are permuted from halves to pairs; Llama 3's rotary scaling is a tensor of
divisors of the frequencies; Gemma's norm gains are stored plus one; runs of spaces among Gemma's user-defined tokens
are written as spaces. `make_golden.py gguf` then loads them with transformers, and `check_llama_cpp.py` with
llama.cpp: both must read what was written.

Not in a Gemma 3 file: the query scale (a reader takes head width ** -0.5), the period of six layers, and the
local layers' rotary base of 10,000. Not in a Gemma 2 file: the query scale (the same), the period of two layers, and
the rotary base of 10,000.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file
from sentencepiece import SentencePieceProcessor

HERE = Path(__file__).parent
TYPES = gguf.TokenType


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rotary halves to pairs, as `LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def llama_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    spec = json.loads((folder / "tokenizer.json").read_text())
    special = {token["id"] for token in spec["added_tokens"]}
    tokens = sorted(spec["model"]["vocab"], key=spec["model"]["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TYPES.CONTROL if i in special else TYPES.NORMAL for i in range(len(tokens))])
    writer.add_token_merges([" ".join(merge) for merge in spec["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])


def words_tokenizer(writer: gguf.GGUFWriter, folder: Path, pre: str) -> None:
    """Llama 3's and Qwen's, whose special ids and template the converter takes from the folder in this way."""
    spec = json.loads((folder / "tokenizer.json").read_text())
    kinds = {t["id"]: TYPES.CONTROL if t["special"] else TYPES.USER_DEFINED for t in spec["added_tokens"]}
    ids = spec["model"]["vocab"] | {token["content"]: token["id"] for token in spec["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(sorted(ids, key=ids.get))
    writer.add_token_types([kinds.get(i, TYPES.NORMAL) for i in range(len(ids))])
    gguf.SpecialVocab(folder, load_merges=True).add_to_gguf(writer, quiet=True)


def gemma_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    proto = gguf_types(folder / "tokenizer.model")
    tokens = [pieces.id_to_piece(i) for i in range(len(pieces))]
    user = [kind == TYPES.USER_DEFINED for kind in proto]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([t.replace("▁", " ") if u else t for t, u in zip(tokens, user, strict=True)])
    # llama.cpp's converter gives every piece that is not normal this score
    normal = [kind == TYPES.NORMAL for kind in proto]
    writer.add_token_scores([pieces.get_score(i) if n else -1000.0 for i, n in enumerate(normal)])
    # the owner's tokenizer_config.json declares the turn delimiters special, so the converter makes them control
    control = {"<start_of_turn>", "<end_of_turn>"}
    writer.add_token_types([TYPES.CONTROL if t in control else k for t, k in zip(tokens, proto, strict=True)])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])


def gguf_types(model: Path) -> list[int]:
    """The kinds of the pieces; GGUF took SentencePiece's numbers."""
    pieces = SentencePieceProcessor(model_file=str(model))
    kinds = []
    for i in range(len(pieces)):
        if pieces.is_unknown(i):
            kinds.append(TYPES.UNKNOWN)
        elif pieces.is_control(i):
            kinds.append(TYPES.CONTROL)
        elif pieces.is_byte(i):
            kinds.append(TYPES.BYTE)
        else:
            # the trainer puts the user-defined symbols first, after the four specials, and scores them zero
            kinds.append(TYPES.USER_DEFINED if i < 4 + 22 and pieces.get_score(i) == 0 else TYPES.NORMAL)
    return kinds


def rope_divisors(config: dict[str, Any]) -> np.ndarray:
    """`rope_freqs.weight` [H / 2], as `LlamaModel.generate_extra_tensors` in llama.cpp's converter."""
    rope = config["rope_parameters"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    divisors = []
    for i in range(0, config["head_dim"], 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (i / config["head_dim"])
        turns = rope["original_max_position_embeddings"] / wavelength
        if turns > high:
            divisors.append(1.0)
        elif turns < low:
            divisors.append(rope["factor"])
        else:
            smooth = (turns - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(divisors, np.float32)


def write(folder: Path, file: Path, quantised: bool) -> None:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    arch = config["model_type"].removesuffix("_text")
    heads, kv_heads, layers = (config[f"num_{k}"] for k in ("attention_heads", "key_value_heads", "hidden_layers"))
    writer = gguf.GGUFWriter(file, arch)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(folder.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config["rope_parameters"]
    if arch == "llama":
        writer.add_rope_freq_base(rope["rope_theta"])
        writer.add_rope_dimension_count(config["head_dim"])
        writer.add_vocab_size(config["vocab_size"])
        if rope["rope_type"] == "llama3":
            words_tokenizer(writer, folder, "llama-bpe")
            writer.add_tensor("rope_freqs.weight", rope_divisors(config))
        else:
            llama_tokenizer(writer, folder.parent / "tiny_llama")
    elif arch in ("qwen2", "qwen3"):
        writer.add_rope_freq_base(rope["rope_theta"])
        words_tokenizer(writer, folder, "qwen2")
    elif arch == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
        writer.add_sliding_window(config["sliding_window"])
        gemma_tokenizer(writer, folder)
    else:
        writer.add_rope_freq_base(rope["full_attention"]["rope_theta"])
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["full_attention"]["factor"])
        writer.add_sliding_window(config["sliding_window"])
        gemma_tokenizer(writer, folder)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantised else gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    kind = gguf.MODEL_ARCH[arch.upper()]
    names = gguf.get_tensor_name_map(kind, layers)
    for name, values in sorted(load_file(folder / "model.safetensors").items()):
        if arch == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            values = permute(values, heads if "q_proj" in name else kv_heads)
        if arch in ("gemma2", "gemma3") and name.endswith("norm.weight"):
            values = values + np.float32(1)
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None, name
        if quantised and values.ndim == 2:
            eight = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(target, gguf.quants.quantize(values, eight), raw_dtype=eight)
        else:
            writer.add_tensor(target, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    for folder, name in (
        ("tiny_llama", "tiny_llama"),
        ("tiny_llama_untied", "tiny_llama_untied_q8_0"),
        ("tiny_gemma3", "tiny_gemma3"),
        ("tiny_gemma3", "tiny_gemma3_q8_0"),
        ("tiny_llama3", "tiny_llama3"),
        ("tiny_qwen2", "tiny_qwen2"),
        ("tiny_qwen2", "tiny_qwen2_q8_0"),
        ("tiny_qwen3", "tiny_qwen3"),
        ("tiny_gemma2", "tiny_gemma2"),
        ("tiny_gemma2", "tiny_gemma2_q8_0"),
    ):
        if name in (sys.argv[1:] or [name]):
            write(HERE / folder, HERE / f"{name}.gguf", quantised=name.endswith("_q8_0"))
