"""Records, a template and a tokenizer into prompt trees, packed into rows of fixed lengths."""

from rocketjax.prompt.chat import Chat, chat_format
from rocketjax.prompt.pack import PackedRow, pack_query, row_lengths
from rocketjax.prompt.prompts import OVERFLOWS, Overflow, Prompter, Prompts, encode_parts, largest_id
from rocketjax.prompt.template import NATIVE, ROCKETEVAL, TEMPLATES, Part, Span, Special, Template, template
from rocketjax.prompt.tokenizer import Tokenizer, load_tokenizer
from rocketjax.prompt.tree import Int, PackedTree, pack_tree, tree_size, window_start

__all__ = [
    "NATIVE", "OVERFLOWS", "ROCKETEVAL", "TEMPLATES", "Chat", "Int", "Overflow", "PackedRow", "PackedTree", "Part",
    "Prompter", "Prompts", "Span", "Special", "Template", "Tokenizer", "chat_format", "encode_parts", "largest_id",
    "load_tokenizer", "pack_query", "pack_tree", "row_lengths", "template", "tree_size", "window_start",
]  # fmt: skip
