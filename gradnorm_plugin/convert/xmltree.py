"""XML as a tree that remembers its lines (the standard library's ElementTree does not)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

_DEEPEST = 100


class XmlError(ValueError):
    """What is wrong with an XML text, and in which line (from 1)."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass
class Element:
    """One element: its tag, the line it begins in, its own text, and the elements in it."""

    tag: str
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[Element]:
        """The elements of that tag directly in this one."""
        return (child for child in self.children if child.tag == tag)

    def get(self, tag: str) -> str | None:
        """The text of the first element of that tag directly in this one, without blanks around it; None without one."""
        return next((child.text.strip() for child in self.all(tag)), None)


def parse_xml(content: bytes) -> Element:
    """The outermost element of an XML text.

    Raises:
        XmlError: if it is not well-formed, declares entities (annotations need none) or nests deeper than 100.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = Element("", 0)
    stack = [top]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(stack) > _DEEPEST:
            raise XmlError(parser.CurrentLineNumber, f"more than {_DEEPEST} elements within each other")
        element = Element(tag, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def text(letters: str) -> None:
        stack[-1].text += letters

    def entity(*_: object) -> None:
        raise XmlError(parser.CurrentLineNumber, "declares an entity, which no annotation needs")

    parser.StartElementHandler, parser.EndElementHandler = start, lambda tag: stack.pop()
    parser.CharacterDataHandler, parser.EntityDeclHandler = text, entity
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise XmlError(error.lineno, f"not well-formed XML: {expat.ErrorString(error.code)}") from None
    except (ValueError, LookupError, UnicodeError) as error:  # an encoding that Python does not know, or cannot use
        if isinstance(error, XmlError):
            raise
        raise XmlError(parser.CurrentLineNumber, f"not readable as XML: {error}") from None
    return top.children[0]
