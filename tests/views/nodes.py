"""How tests go from node to node, and read what is there."""

from __future__ import annotations

from cowfs.views.node import Directory, File, Node


def at(node: Node, *path: str) -> Node:
    for name in path:
        assert isinstance(node, Directory)
        node = node.child(name)
    return node


def listed(node: Node) -> list[str]:
    assert isinstance(node, Directory)
    return [entry.name for entry in node.entries()]


def content(node: Node) -> bytes:
    assert isinstance(node, File)
    buffer = bytearray(node.attributes().size + 10)
    count = node.readinto(0, memoryview(buffer))
    assert count == node.attributes().size
    return bytes(buffer[:count])
