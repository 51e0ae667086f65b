"""Parse YAML, and reject what PyYAML would silently accept."""

from collections.abc import Iterator

import yaml


def parsed(content: bytes) -> object:
    """Return the content of a YAML document; anchors and merges (`<<`) work as usual.

    Raises:
        ValueError: it is not YAML, or a mapping has a key twice; the message is one line, with line numbers.
    """
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(content.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not YAML: no UTF-8 text ({error.reason} at byte {error.start})") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {_one_line(error)}") from None
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        for place, key, first, second in _twice(root, (), set()):
            where = f" of {'.'.join(place)}" if place else ""
            raise ValueError(f"the key '{key}'{where} stands on line {first} and on line {second}; expected once")
        return loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {_one_line(error)}") from None
    except RecursionError:
        raise ValueError("unreadable YAML: an anchor contains itself, or nesting is too deep") from None
    finally:
        loader.dispose()


def _twice(node: yaml.Node, place: tuple[str, ...], seen: set[int]) -> Iterator[tuple[tuple[str, ...], str, int, int]]:
    """Yield duplicate keys of mappings, before merges are applied: the path to the mapping, the key, both lines."""
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, part in enumerate(node.value):
            yield from _twice(part, (*place, str(number)), seen)
        return
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                yield place, key.value, lines[key.tag, key.value], line
            lines[key.tag, key.value] = line
        name = key.value if isinstance(key, yaml.ScalarNode) else "?"
        yield from _twice(value, (*place, name), seen)


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())
