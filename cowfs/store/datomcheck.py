"""``check_store``: whether a root holds what a store must hold.

The indexes are read once each. Whether they agree datom by datom is first asked of the sums of their datoms' hashes, which
do not depend on the order; only when these differ is every datom looked up on the other side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import islice

from cowfs.errors import CorruptDatabase, DatabaseError
from cowfs.pages.reader import Reader
from cowfs.store.agreement import Agreement
from cowfs.store.model.encoding import KEY_VALUE_DIGESTED, KEY_VALUE_MAX, REF, decode, encode_again, instant_of, key_value
from cowfs.store.model.layout import (
    AID_SIZE,
    ATTRIBUTE_KEYS,
    AVE,
    EAV,
    ENTITY_SIZE,
    LOG,
    META,
    PREFIX_SIZE,
    TOUCHED,
    TX_SIZE,
    Count,
    State,
    read_counts,
    read_format,
    read_state,
    stop_after,
    txid_of,
)
from cowfs.store.model.lines import line_size
from cowfs.store.model.schema import Attribute, Schema, parse_record
from cowfs.store.model.steps import Steps, read_steps
from cowfs.store.model.values import MAX_ENTITY
from cowfs.store.read.last_modified import has_datoms
from cowfs.store.read.log import RawDatom, parse_row, raw_datoms
from cowfs.store.tx.allocation import read_allocated

_MAX_NAMED = 20  # datoms that one kind of finding names


def check_store(reader: Reader, txnid: int) -> Iterator[str]:
    """Yield one line for each thing that is wrong with the store at a root; a sound store yields none.

    ``txnid`` is LMDB's transaction id of the root. Damage ends in a finding, never in an exception.
    """
    try:
        stored = read_format(reader)
        state = read_state(reader)
    except DatabaseError as error:
        yield str(error)
        return
    examination = Examination(reader, state, txnid)
    parts = (
        partial(examination.read_attributes, strict=stored.strict),
        examination.check_state,
        examination.check_eav,
        examination.check_ave,
        examination.check_agreement,
        examination.check_counts,
        examination.check_touched,
        examination.check_log,
    )
    sound = True
    for part in parts:
        try:
            for finding in part():
                sound = False
                yield finding
        except DatabaseError as error:
            sound = False
            yield str(error)
    if sound:  # else what differs would mostly be named twice
        yield from examination.check_log_agreement()


class Examination:
    """One check of one root: what its parts have found out so far."""

    def __init__(self, reader: Reader, state: State, txnid: int) -> None:
        self._reader = reader
        self._state = state
        self._txid = txid_of(txnid, state)
        self._schema = Schema()
        self._counts: Counter[bytes] = Counter()
        self._sizes: Counter[bytes] = Counter()
        self._unsized: set[bytes] = set()  # attributes with a datom that no line can be made of
        self._eav_sum = 0
        self._ave_sum = 0
        self._highest = 0
        self._agreement = Agreement()

    def read_attributes(self, *, strict: bool) -> Iterator[str]:
        """Read the attributes that there are, for the other parts."""
        attributes: dict[str, Attribute] = {}
        for key, data in self._reader.scan(META, ATTRIBUTE_KEYS, stop_after(ATTRIBUTE_KEYS)):
            try:
                attribute = parse_record(key, data)
            except CorruptDatabase as error:
                yield str(error)
                continue
            if attribute.name in attributes:
                yield f"{attribute.name} is defined twice"
            attributes[attribute.name] = attribute
        self._schema = Schema(attributes.values(), strict=strict)

    def check_state(self) -> Iterator[str]:
        """Check the state record, and where the allocation of ids stands."""
        if self._state.txid > self._txid:
            yield f"the last txid {self._state.txid} is above that of the root, {self._txid}"
        if self._state.max_entity > MAX_ENTITY:
            yield f"the highest entity id {self._state.max_entity} is above 2**53-1"
        allocated = read_allocated(self._reader) or 0
        if allocated > self._state.max_entity:
            yield f"the store gave the entity id {allocated}, above its highest one, {self._state.max_entity}"

    def check_eav(self) -> Iterator[str]:
        """Check every entry of ``eav``, and count."""
        before = b""
        total = 0
        for key, data in self._reader.scan(EAV):
            problem = self._entry_problem(key, data)
            if (
                problem is None
                and key[:PREFIX_SIZE] == before
                and not self._schema.by_key[key[ENTITY_SIZE:PREFIX_SIZE]].many
            ):
                problem = "a second value of an attribute with cardinality one"
            if problem is not None:
                yield f"eav, {self._named(key[:ENTITY_SIZE], key[ENTITY_SIZE:PREFIX_SIZE])}: {problem}"
            before = key[:PREFIX_SIZE]
            aid = before[ENTITY_SIZE:]
            self._counts[aid] += 1
            if problem is None:
                self._sizes[aid] += _line_size(key, data)
            else:
                self._unsized.add(aid)
            total += hash((key[ENTITY_SIZE:], key[:ENTITY_SIZE], data[:TX_SIZE]))
            self._agreement.stored(key, data)
        self._eav_sum = total % 2**64

    def check_ave(self) -> Iterator[str]:
        """Check every entry of ``ave`` that ``check_eav`` cannot have seen: keys, and unique values."""
        before = b""
        total = 0
        unique = {key for key, attribute in self._schema.by_key.items() if attribute.unique is not None}
        for key, data in self._reader.scan(AVE):
            aid, e = key[:AID_SIZE], key[-ENTITY_SIZE:]
            if len(key) <= PREFIX_SIZE or len(data) != TX_SIZE:
                yield f"ave: an entry of {len(key)} and {len(data)} bytes is no datom"
            elif aid in unique and key[:-ENTITY_SIZE] == before[:-ENTITY_SIZE]:
                other = int.from_bytes(before[-ENTITY_SIZE:], "big")
                yield f"ave, {self._named(e, aid)}: the value is unique, and entity {other} has it too"
            before = key
            total += hash((key[:-ENTITY_SIZE], e, data))
        self._ave_sum = total % 2**64

    def check_agreement(self) -> Iterator[str]:
        """Check that both indexes hold the same datoms; name those that they do not, when there are any."""
        if self._eav_sum != self._ave_sum:
            missing = list(islice(self._one_sided(), _MAX_NAMED + 1))
            yield from missing[:_MAX_NAMED] or ["eav and ave differ"]
            if len(missing) > _MAX_NAMED:
                yield "eav and ave differ in more datoms"

    def check_counts(self) -> Iterator[str]:
        """Check the numbers that the store keeps against what was counted."""
        total = sum(self._counts.values())
        if total != self._state.datoms:
            yield f"the store says that it has {self._state.datoms} datoms, and eav has {total}"
        if self._highest > self._state.max_entity:
            yield f"entity {self._highest} is above the highest entity id of the store, {self._state.max_entity}"
        kept = read_counts(self._reader)
        for aid in sorted(kept.keys() | {int.from_bytes(key, "big") for key in self._counts}):
            key = aid.to_bytes(AID_SIZE, "big") if aid < 2**32 else b""
            count = kept.get(aid, Count())
            attribute = self._schema.by_key.get(key)
            name = attribute.name if attribute else f"attribute {aid}"
            if count.datoms != self._counts[key]:
                yield f"{name}: the store says {count.datoms} datoms, and eav has {self._counts[key]}"
            elif count.size not in (None, self._sizes[key]) and key not in self._unsized:
                yield f"{name}: the store says that its lines have {count.size} bytes, and they have {self._sizes[key]}"

    def check_touched(self) -> Iterator[str]:
        """Check that what ``touched`` remembers can have been."""
        for key, data in self._reader.scan(TOUCHED):
            entity, tx = int.from_bytes(key, "big"), int.from_bytes(data, "big")
            if len(key) != ENTITY_SIZE or len(data) != TX_SIZE:
                yield f"touched: an entry of {len(key)} and {len(data)} bytes is none"
            elif not 1 <= entity <= MAX_ENTITY:
                yield f"touched: no entity has the id {entity}"
            elif not 1 <= tx <= self._state.txid:
                yield f"touched, entity {entity}: transaction {tx} has not been"
            elif not has_datoms(self._reader, key):
                yield f"touched, entity {entity}: it has no datoms"

    def check_log(self) -> Iterator[str]:
        """Check every row of the log, the record of where the clock went back, and that the newest row is the state's."""
        last = micros = 0
        try:
            steps = read_steps(self._reader)
        except CorruptDatabase as error:
            yield str(error)
            steps = Steps()
        unseen = set(steps.txids)
        for key, row in self._reader.scan(LOG):
            if len(key) != TX_SIZE:
                yield f"the log: a key of {len(key)} bytes is no transaction"
                continue
            txid = int.from_bytes(key, "big")
            now = int.from_bytes(row[:8], "big", signed=True)
            if last and now < micros and not (txid in unseen or txid <= steps.floor):
                yield f"the log: transaction {txid} is of {_moment(now)}, before that of transaction {last}"
            if last and now < micros:
                unseen.discard(txid)
            last, micros = txid, now
            try:
                parse_row(txid, row, self._schema.by_key)
                for datom in raw_datoms(txid, row):
                    self._agreement.logged(datom)
            except CorruptDatabase as error:
                yield str(error)
        for txid in sorted(unseen):
            yield f"the record of the clock's steps says that it went back before transaction {txid}, and it did not"
        if (last, micros) != (self._state.txid, self._state.instant):
            yield (
                f"the newest transaction of the log is {last} of {_moment(micros)},"
                f" that of the store {self._state.txid} of {_moment(self._state.instant)}"
            )

    def check_log_agreement(self) -> Iterator[str]:
        """Check that the indexes hold what the log says, and name what differs when anything does."""
        if self._agreement.complete:
            return
        differing = self._agreement.differing(self._reader.scan(EAV), self._logged())
        for number, found in enumerate(differing):
            if number == _MAX_NAMED or found is None:
                yield "the log and eav differ in more datoms"
                return
            (prefix, _encoding, tx), how = found
            transaction = int.from_bytes(tx, "big")
            yield f"{self._named(prefix[:ENTITY_SIZE], prefix[ENTITY_SIZE:])}: a datom of transaction {transaction} is {how}"

    # -- inside --------------------------------------------------------------------------------------------------

    def _entry_problem(self, key: bytes, data: bytes) -> str | None:
        """Return what is wrong with one entry of ``eav`` by itself, None when nothing is."""
        if len(key) <= PREFIX_SIZE or len(data) < TX_SIZE:
            return f"an entry of {len(key)} and {len(data)} bytes is no datom"
        entity = int.from_bytes(key[:ENTITY_SIZE], "big")
        attribute = self._schema.by_key.get(key[ENTITY_SIZE:PREFIX_SIZE])
        self._highest = max(self._highest, entity)
        if not 1 <= entity <= MAX_ENTITY:
            return "no entity has such an id"
        if attribute is None:
            return "no such attribute"
        if not 1 <= int.from_bytes(data[:TX_SIZE], "big") <= self._state.txid:
            return "of a transaction that has not been"
        return self._value_problem(attribute, key[PREFIX_SIZE:], data[TX_SIZE:])

    def _value_problem(self, attribute: Attribute, value: bytes, kept: bytes) -> str | None:
        encoding = kept or value
        if len(value) == KEY_VALUE_DIGESTED and not kept:
            return "a long value is not there"
        if kept and (len(kept) <= KEY_VALUE_MAX or key_value(kept) != value):
            return "a long value does not fit its digest"
        try:
            found = decode(encoding)
        except CorruptDatabase as error:
            return str(error)
        if encode_again(encoding) != encoding:
            return f"the value {found!r:.60} is not encoded as it would be"
        if not attribute.takes_tag(encoding[0]):
            return f"the value {found!r:.60} is not of type {attribute.type}"
        if encoding[0] == REF and not 1 <= int.from_bytes(encoding[1:], "big") <= self._state.max_entity:
            return f"a reference to {found!r}, which no entity can be"
        return None

    def _logged(self) -> Iterator[RawDatom]:
        """Yield the datoms of the rows of the log that can be read."""
        for key, row in self._reader.scan(LOG):
            with suppress(CorruptDatabase):
                yield from raw_datoms(int.from_bytes(key, "big"), row)

    def _one_sided(self) -> Iterator[str]:
        for key, data in self._reader.scan(EAV):
            e, aid = key[:ENTITY_SIZE], key[ENTITY_SIZE:PREFIX_SIZE]
            if self._reader.get(AVE, key[ENTITY_SIZE:] + e) != data[:TX_SIZE]:
                yield f"{self._named(e, aid)}: a datom of eav is not in ave, or with another transaction"
        for key, data in self._reader.scan(AVE):
            e, aid = key[-ENTITY_SIZE:], key[:AID_SIZE]
            if (self._reader.get(EAV, e + key[:-ENTITY_SIZE]) or b"")[:TX_SIZE] != data:
                yield f"{self._named(e, aid)}: a datom of ave is not in eav, or with another transaction"

    def _named(self, e: bytes, aid: bytes) -> str:
        attribute = self._schema.by_key.get(aid)
        name = attribute.name if attribute else f"attribute {int.from_bytes(aid, 'big')}"
        return f"entity {int.from_bytes(e, 'big')} {name}"


def _line_size(key: bytes, data: bytes) -> int:
    e, encoding = key[:ENTITY_SIZE], data[TX_SIZE:] or key[PREFIX_SIZE:]
    return line_size(encoding, int.from_bytes(e, "big"), int.from_bytes(data[:TX_SIZE], "big"))


def _moment(micros: int) -> str:
    try:
        return str(instant_of(micros))
    except OverflowError:
        return f"microsecond {micros}"
