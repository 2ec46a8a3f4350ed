from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from cowfs.pages.datafile import DataFile
from cowfs.pages.format import BIG_DATA, BRANCH, DUP_DATA, LEAF2, NO_PAGE, OVERFLOW, SUB_DATA
from cowfs.pages.pagecheck import Finding, check_pages
from tests.support.environments import findings, write_all_kinds
from tests.support.surgery import FREE_RECORD, MAIN_RECORD, Patient, free_record

Expected = tuple[int | None, str]
Damage = Callable[[Patient], Expected]

DAMAGES: dict[str, Damage] = {}


def damage(function: Damage) -> Damage:
    DAMAGES[function.__name__] = function
    return function


def test_a_sound_environment_has_no_findings(all_kinds: Path, tmp_path: Path) -> None:
    """Also with other sizes than the rest of the tests use."""
    seen: list[int] = []
    with DataFile(all_kinds) as file:
        root = file.newest_root()
        assert list(check_pages(file, root, seen.append)) == []
    classes = Patient(all_kinds).classes()
    expected = {"branch", "leaf", "fixed leaf", "sub-page", "record", "overflow header", "freelist", "main tree", "meta"}
    assert expected < set(classes)
    assert 0 < sum(seen) <= root.pages - 2
    write_all_kinds(tmp_path / "large", scale=1500, seed=2)
    assert findings(tmp_path / "large") == []


# -- the balance of pages -----------------------------------------------------------------------------------------


@damage
def an_unlisted_free_page(patient: Patient) -> Expected:
    record = free_record(patient)
    count = patient.read(record, "<Q")
    patient.poke(record, "<Q", count - 1)
    return patient.read(record + 8 * count, "<Q"), "neither reachable nor free"


@damage
def a_page_freed_twice(patient: Patient) -> Expected:
    record = free_record(patient)
    page = patient.read(record + 8, "<Q")
    patient.poke(record + 16, "<Q", page)
    return page, "freed twice"


@damage
def a_page_reachable_and_free(patient: Patient) -> Expected:
    patient.poke(free_record(patient) + 8, "<Q", patient.root.main.root)
    return patient.root.main.root, "reachable, and free since transaction"


@damage
def a_free_page_that_cannot_be(patient: Patient) -> Expected:
    patient.poke(free_record(patient) + 8, "<Q", 2**60)
    return None, f"names page {2**60}, which cannot be"


@damage
def a_freelist_record_with_a_wrong_count(patient: Patient) -> Expected:
    patient.poke(free_record(patient), "<Q", 2**63)
    return patient.root.free.root, "the freelist cannot be read"


@damage
def pages_that_nobody_knows(patient: Patient) -> Expected:
    """The file and its last page number have grown."""
    patient.poke(patient.meta + 136, "<Q", patient.root.last_pgno + 3)
    patient.data += bytes(3 * patient.page_size)
    return patient.root.last_pgno + 1, "neither reachable nor free (and the 2 pages after it)"


@damage
def a_circle(patient: Patient) -> Expected:
    root = patient.records[b"deep"].root
    patient.poke(patient.nodes(root)[2], "<HHH", root & 0xFFFF, root >> 16, 0)
    return root, "database 'deep': "


@damage
def a_page_with_two_parents(patient: Patient) -> Expected:
    root = patient.records[b"deep"].root
    one, other = patient.nodes(root)[1:3]
    patient.data[one : one + 6] = patient.data[other : other + 6]
    return patient.read(other, "<H"), "reachable twice"


@damage
def an_overflow_run_of_two_values(patient: Patient) -> Expected:
    (_, one, node), (_, other, _) = patient.special(b"big", BIG_DATA)[:2]
    patient.poke(other, "<HH", node.size & 0xFFFF, node.size >> 16)
    patient.data[patient.value(other) : patient.value(other) + 8] = node.data
    assert patient.data[patient.value(one) : patient.value(one) + 8] == node.data
    return int.from_bytes(node.data, "little"), "reachable twice"


# -- what a page is -----------------------------------------------------------------------------------------------


@damage
def a_page_with_another_number(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"deep"])[1]
    patient.poke(patient.at(page), "<Q", page + 1)
    return page, f"says that it is page {page + 1}"


@damage
def a_page_of_another_kind(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"deep"])[1]
    patient.poke(patient.at(page) + 10, "<H", OVERFLOW)
    return page, "neither a branch nor a leaf (flags 0x4)"


@damage
def a_child_that_cannot_be(patient: Patient) -> Expected:
    root = patient.records[b"deep"].root
    patient.poke(patient.nodes(root)[1], "<HHH", 1, 0, 0)
    return root, "child page 1 is not in 2.."


@damage
def a_gap_between_nodes(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"deep"])[0]
    upper = patient.read(patient.at(page) + 14, "<H")
    patient.poke(patient.at(page) + 14, "<H", upper - 2)
    return page, "do not lie side by side"


@damage
def a_value_that_is_longer_than_its_node(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"integer"])[0]
    node = patient.nodes(page)[1]
    patient.poke(node, "<H", patient.read(node, "<H") + 2)
    return page, "do not lie side by side"


@damage
def a_branch_with_a_longer_key(patient: Patient) -> Expected:
    root = patient.records[b"deep"].root
    node = patient.nodes(root)[1]
    patient.poke(node + 6, "<H", patient.read(node + 6, "<H") - 3)
    return root, "do not lie side by side"


@damage
def an_unknown_node(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"deep"])[0]
    patient.poke(patient.nodes(page)[0] + 4, "<H", 0x80)
    return page, "a node with flags 0x80"


@damage
def a_database_inside_a_database(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"deep"])[0]
    patient.poke(patient.nodes(page)[0] + 4, "<H", SUB_DATA)
    return page, "a node with flags 0x2"


@damage
def duplicates_where_there_can_be_none(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"deep"])[0]
    patient.poke(patient.nodes(page)[0] + 4, "<H", DUP_DATA)
    return page, "a node with flags 0x4"


# -- order --------------------------------------------------------------------------------------------------------


@damage
def swapped_leaf_keys(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"deep"])[2]
    patient.swap(patient.at(page) + 16, patient.at(page) + 18, 2)
    return page, "database 'deep': keys out of order"


@damage
def swapped_branch_keys(patient: Patient) -> Expected:
    root = patient.records[b"deep"].root
    patient.swap(patient.at(root) + 18, patient.at(root) + 20, 2)
    return root, "database 'deep': keys out of order"


@damage
def swapped_integer_keys(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"integer"])[0]
    one, other = (patient.key(node) for node in patient.nodes(page)[3:5])
    patient.swap(one, other, 8)
    return page, "database 'integer': keys out of order"


@damage
def swapped_reverse_keys(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"reverse"])[0]
    patient.swap(patient.at(page) + 16, patient.at(page) + 18, 2)
    return page, "database 'reverse': keys out of order"


@damage
def a_key_twice(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"integer"])[0]
    one, other = (patient.key(node) for node in patient.nodes(page)[3:5])
    patient.data[one : one + 8] = patient.data[other : other + 8]
    return page, "keys out of order"


@damage
def a_key_beyond_the_separator(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"deep"])[1]
    patient.poke(patient.key(patient.nodes(page)[-1]), "<B", 0xFF)
    return page, "not below the separator after it"


@damage
def a_key_that_is_the_next_separator(patient: Patient) -> Expected:
    leaves = patient.leaves(patient.records[b"deep"])
    for page, following in pairwise(leaves):
        last, first = patient.nodes(page)[-1], patient.nodes(following)[0]
        size = patient.read(last + 6, "<H")
        if size == patient.read(first + 6, "<H"):
            patient.data[patient.key(last) : patient.value(last)] = patient.data[patient.key(first) : patient.value(first)]
            return page, "not below the separator after it"
    raise AssertionError("no neighbours with keys of one size")


@damage
def a_key_before_the_separator(patient: Patient) -> Expected:
    page = patient.leaves(patient.records[b"deep"])[1]
    patient.poke(patient.key(patient.nodes(page)[0]), "<B", 0)
    return page, "below the separator above it"


@damage
def swapped_values_in_a_sub_page(patient: Patient) -> Expected:
    page, position, _node = patient.special(b"reverse dup", DUP_DATA)[0]
    patient.swap(patient.value(position) + 16, patient.value(position) + 18, 2)
    return page, "duplicates of b'k0': keys out of order"


@damage
def swapped_values_in_a_fixed_sub_page(patient: Patient) -> Expected:
    page, position, _node = patient.special(b"dup fixed text", DUP_DATA)[0]
    patient.swap(patient.value(position) + 16, patient.value(position) + 28, 12)
    return page, "database 'dup fixed text', duplicates of b'0': keys out of order"


@damage
def swapped_values_in_a_fixed_leaf(patient: Patient) -> Expected:
    page = patient.leaves(patient.duplicates(b"dup fixed")[0][1])[0]
    assert patient.flags(page) & LEAF2
    patient.swap(patient.at(page) + 16, patient.at(page) + 24, 8)
    return page, "database 'dup fixed', duplicates of b'0': keys out of order"


@damage
def swapped_values_in_a_tree_of_duplicates(patient: Patient) -> Expected:
    page = patient.leaves(patient.duplicates(b"dup")[0][1])[0]
    patient.swap(patient.at(page) + 16, patient.at(page) + 18, 2)
    return page, "database 'dup', duplicates of b'0': keys out of order"


@damage
def a_sub_page_that_does_not_fit(patient: Patient) -> Expected:
    page, position, _node = patient.special(b"reverse dup", DUP_DATA)[0]
    patient.poke(patient.value(position) + 12, "<H", 4000)
    return page, "free space 4000.."


@damage
def a_fixed_leaf_with_too_many_keys(patient: Patient) -> Expected:
    page = patient.leaves(patient.duplicates(b"dup fixed")[0][1])[0]
    patient.poke(patient.at(page) + 12, "<H", 60_000)
    return page, "keys of 8 bytes do not fit"


# -- overflow runs ------------------------------------------------------------------------------------------------


def big_value(patient: Patient) -> tuple[int, int, int]:
    """Return page, position and overflow page of a value of several pages."""
    page, position, node = next(item for item in patient.special(b"big", BIG_DATA) if item[2].size > 8192)
    return page, position, int.from_bytes(node.data, "little")


@damage
def a_short_overflow_run(patient: Patient) -> Expected:
    _page, _position, first = big_value(patient)
    patient.poke(patient.at(first) + 12, "<I", 1)
    return first, "a run of 1 pages cannot hold"


@damage
def a_huge_overflow_run(patient: Patient) -> Expected:
    _page, _position, first = big_value(patient)
    patient.poke(patient.at(first) + 12, "<I", 2**32 - 1)
    return first, f"a run of {2**32 - 1} pages cannot hold"


@damage
def a_value_that_is_longer_than_its_run(patient: Patient) -> Expected:
    _page, position, first = big_value(patient)
    patient.poke(position, "<HH", 0xFFFF, 0xFFFF)
    return first, f"cannot hold a value of {2**32 - 1} bytes"


@damage
def an_overflow_page_that_cannot_be(patient: Patient) -> Expected:
    page, position, _first = big_value(patient)
    patient.poke(patient.value(position), "<Q", 2**63)
    return page, f"overflow page {2**63} is not in 2.."


@damage
def an_overflow_page_that_is_none(patient: Patient) -> Expected:
    _page, position, _first = big_value(patient)
    patient.poke(patient.value(position), "<Q", patient.root.main.root)
    return patient.root.main.root, "not an overflow page"


# -- records ------------------------------------------------------------------------------------------------------


def record_damage(name: bytes, field: int, form: str, change: int, text: str) -> None:
    def changed(patient: Patient) -> Expected:
        if name in (b"main", b"free"):
            position = patient.meta + (MAIN_RECORD if name == b"main" else FREE_RECORD)
        else:
            position = patient.record(name)
        patient.poke(position + field, form, patient.read(position + field, form) + change)
        return None, text

    DAMAGES[f"{name.decode()}_{text}_{field}"] = changed


for offset, unit in ((8, "branch pages"), (16, "leaf pages"), (24, "overflow pages"), (32, "entries")):
    for tree in (b"deep", b"big", b"main", b"free"):
        record_damage(tree, offset, "<Q", 1, f" {unit}, there are ")
record_damage(b"dup", 32, "<Q", -1, "database 'dup': its record says")
record_damage(b"deep", 40, "<Q", 2**32, "its root page")


@damage
def a_depth_that_is_too_great(patient: Patient) -> Expected:
    record = patient.record(b"deep") + 6
    patient.poke(record, "<H", patient.read(record, "<H") + 1)
    return patient.leaves(patient.records[b"deep"])[-1], "a leaf at level 2 of a tree of depth 3"


@damage
def a_depth_that_is_too_small(patient: Patient) -> Expected:
    patient.poke(patient.record(b"deep") + 6, "<H", 1)
    return patient.records[b"deep"].root, "a branch page at level 1 of a tree of depth 1"


@damage
def a_lost_tree(patient: Patient) -> Expected:
    patient.poke(patient.record(b"integer") + 40, "<Q", NO_PAGE)
    return patient.records[b"integer"].root, "neither reachable nor free"


@damage
def a_record_of_duplicates_with_a_wrong_count(patient: Patient) -> Expected:
    position, _record = patient.duplicates(b"dup")[0]
    patient.poke(position + 32, "<Q", 3)
    return None, "database 'dup', duplicates of b'0': its record says 3 entries"


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_where_it_is(all_kinds: Path, damaged: Path, name: str) -> None:
    patient = Patient(all_kinds)
    page, text = DAMAGES[name](patient)
    (damaged / "data.mdb").write_bytes(patient.data)
    with DataFile(damaged) as file:
        found = list(check_pages(file, file.newest_root()))
    assert any(finding.page == page and text in finding.text for finding in found), found
    assert len({str(finding) for finding in found}) == len(found)


def test_damage_to_one_page_does_not_hide_damage_to_another(all_kinds: Path, damaged: Path) -> None:
    patient = Patient(all_kinds)
    expected = [DAMAGES[name](patient) for name in ("swapped_leaf_keys", "swapped_integer_keys", "a_short_overflow_run")]
    expected.append(DAMAGES["an_unlisted_free_page"](patient))
    (damaged / "data.mdb").write_bytes(patient.data)
    with DataFile(damaged) as file:
        found = {(finding.page, finding.text.split(": ")[-1]) for finding in check_pages(file, file.newest_root())}
    assert {page for page, _text in expected} <= {page for page, _text in found}


def test_a_cut_file_is_found_page_by_page(all_kinds: Path, damaged: Path) -> None:
    patient = Patient(all_kinds)
    branch = patient.records[b"deep"].root
    assert patient.flags(branch) & BRANCH
    leaves = patient.leaves(patient.records[b"deep"])
    cut = sorted(leaves)[-2]
    (damaged / "data.mdb").write_bytes(patient.data[: patient.at(cut) + 100])
    with DataFile(damaged) as file:
        found = list(check_pages(file, file.newest_root()))
    missing = {finding.page for finding in found if "missing" in finding.text}
    assert missing >= {leaf for leaf in leaves if leaf >= cut}


def test_a_value_that_the_end_of_the_file_cuts_is_found(all_kinds: Path, damaged: Path) -> None:
    """A run of three pages, moved to the end of the file, and cut in its second page."""
    patient = Patient(all_kinds)
    _page, position, old = big_value(patient)
    first = patient.root.pages
    patient.data += patient.data[patient.at(old) : patient.at(old) + 5000]
    patient.poke(patient.at(first), "<Q", first)
    patient.poke(patient.value(position), "<Q", first)
    patient.poke(patient.meta + 136, "<Q", first + 10)
    (damaged / "data.mdb").write_bytes(patient.data)
    with DataFile(damaged) as file:
        found = [finding.text for finding in check_pages(file, file.newest_root()) if finding.page == first]
    assert found[:1] == ["database 'big': an overflow run is cut short, the file ends in it"]


def test_a_finding_names_its_page() -> None:
    assert str(Finding(7, "reachable twice")) == "page 7: reachable twice"
    assert str(Finding(None, "the main tree: wrong")) == "the main tree: wrong"
