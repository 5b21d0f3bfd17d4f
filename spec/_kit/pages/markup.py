"""HTML put together from parts that are escaped unless they are markup already."""

from __future__ import annotations

import html
import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_VOID = frozenset({"br", "hr", "img", "link", "meta", "wbr"})


class Markup(str):
    """Text that is markup: it is not escaped again."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """`text` as markup. What no document may have in it (control characters, lone surrogates) becomes U+FFFD."""
    return text if isinstance(text, Markup) else Markup(html.escape(plain(text)))


def plain(text: str) -> str:
    """`text` without what neither HTML, XML nor UTF-8 may have in it."""
    return _CONTROLS.sub("\ufffd", text)


def join(*parts: str | int | None, between: str = "") -> Markup:
    """The parts one after another; None is nothing."""
    said = [part if isinstance(part, str) else str(part) for part in parts if part is not None]
    return Markup(escape(between).join(escape(part) for part in said))


def el(tag: str, *parts: str | int | None, **attributes: str | int | bool | None) -> Markup:
    """An element. Attributes that are None or False are left out; `class_` is `class`, `data_x` is `data-x`."""
    said = ""
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        key = name.rstrip("_").replace("_", "-")
        said += f" {key}" if value is True else f' {key}="{escape(str(value))}"'
    if tag in _VOID:
        return Markup(f"<{tag}{said}>")
    return Markup(f"<{tag}{said}>{join(*parts)}</{tag}>")


def breakable(slug: str) -> Markup:
    """A clause's id that may be broken into lines behind its dots and hyphens."""
    return Markup(re.sub(r"([.\-_])(?=.)", r"\1<wbr>", escape(slug)))
