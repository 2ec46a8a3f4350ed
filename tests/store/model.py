"""The transaction rules once more, as naively as can be: sets of facts, no indexes, no encodings."""

from __future__ import annotations

from typing import Any

Fact = tuple[int, str, Any]
MANY = {":person/tags", ":person/friend", ":person/parts", ":person/notes"}
REFS = {":person/boss", ":person/friend", ":person/parts"}
IDENTITY = ":person/email"
UNIQUE = (":person/email", ":person/code")


class Refused(Exception):
    """The model does not take the transaction."""


class Model:
    """Facts with the transaction that asserted each, the highest entity id, and the last that new ones follow.

    They follow ids up to ``followed``.
    """

    def __init__(self, followed: int) -> None:
        self.facts: dict[Fact, int] = {}
        self.highest = 0
        self.last = 0
        self.followed = followed

    def transact(self, forms: list[Any], txid: int) -> dict[int, int]:
        """Do a transaction of list forms, and of ids alone, which assert nothing; return the ids of the tempids.

        Changes nothing when it raises ``Refused``.
        """
        ids, highest, last = self._resolve(forms)
        now = set(self.facts)
        for form in forms:
            self._apply(form, ids, now)
        for attribute in UNIQUE:
            values = [value for _e, a, value in now if a == attribute]
            if len(values) != len(set(values)):
                raise Refused(attribute)
        new = set(ids.values()) - self._named(forms) - self._used()
        if (new - {e for e, _a, _v in now}) & {v for _e, a, v in now if a in REFS}:
            raise Refused("nothing is left")
        self.facts = {fact: self.facts.get(fact, txid) for fact in now}
        self.highest, self.last = highest, last
        return ids

    def entity(self, e: int) -> dict[str, Any] | None:
        document: dict[str, Any] = {}
        for entity, a, v in sorted(self.facts, key=repr):
            if entity == e:
                document[a] = sorted([*document.get(a, []), v]) if a in MANY else v
        return {":db/id": e, **dict(sorted(document.items()))} if document else None

    def _resolve(self, forms: list[Any]) -> tuple[dict[int, int], int, int]:
        adds = [form for form in forms if form[0] in (":db/add", ":db/cas")]
        tempids = list(dict.fromkeys(part for form in forms for part in self._parts(form) if part < 0))
        owners = {v: e for e, a, v in self.facts if a == IDENTITY}
        same: dict[int, set[int]] = {tempid: {tempid} for tempid in tempids}
        claims = [(form[1], form[3]) for form in adds if form[0] == ":db/add" and form[2] == IDENTITY]
        for e, value in claims:
            first = next(other for other, v in sorted(claims, key=lambda claim: claim[0] < 0) if v == value)
            owner = owners.get(value, first)
            if e < 0:
                union = same[e] | same.setdefault(owner, {owner})
                for member in union:
                    same[member] = union
        named = [e for form in adds for e in self._parts(form) if e > 0]
        named += [form[3] for form in forms if form[0] == ":db/retract" and len(form) == 4 and form[2] in REFS]
        last = max([self.last, *(e for e in named if 0 < e <= self.followed)])
        ids: dict[int, int] = {}
        for tempid in tempids:
            entities = {member for member in same[tempid] if member > 0}
            if len(entities) > 1:
                raise Refused("upserts")
            if not entities and not any(form[1] in same[tempid] for form in adds):
                raise Refused("tempid")
            known = entities or {ids[member] for member in same[tempid] if member in ids}
            if not known:
                last += 1
                while last in self._named(forms) | self._used():
                    last += 1
                known = {last}
            ids[tempid] = known.pop()
        return ids, max([self.highest, *(e for e in named if e > 0), *ids.values()]), last

    def _used(self) -> set[int]:
        return {e for e, _a, _v in self.facts} | {v for _e, a, v in self.facts if a in REFS}

    def _named(self, forms: list[Any]) -> set[int]:
        return {part for form in forms for part in self._parts(form) if part > 0}

    @staticmethod
    def _parts(form: list[Any]) -> list[int]:
        """Return the entities of a form, in the order in which they are read."""
        refers = len(form) > 3 and form[2] in REFS and form[0] != ":db/cas"
        return [form[1], *([form[3]] if refers else [])]

    def _apply(self, form: list[Any], ids: dict[int, int], now: set[Fact]) -> None:
        operation, e, *rest = form
        e = ids.get(e, e)
        if operation == ":db/retractEntity":
            self._retract_entity(e, now)
        if len(form) == 2:
            return
        a = rest[0]
        v = ids.get(rest[1], rest[1]) if len(rest) > 1 and a in REFS else (rest[1] if len(rest) > 1 else None)
        if operation == ":db/add":
            self._add((e, a, v), now)
        elif operation == ":db/retract":
            now -= {fact for fact in now if fact[:2] == (e, a) and v in (None, fact[2])}
        else:
            current = next((fact[2] for fact in now if fact[:2] == (e, a)), None)
            if current != rest[1]:
                raise Refused("cas")
            self._add((e, a, rest[2]), now)

    @staticmethod
    def _add(fact: Fact, now: set[Fact]) -> None:
        if fact[1] not in MANY:
            now -= {other for other in now if other[:2] == fact[:2]}
        now.add(fact)

    def _retract_entity(self, e: int, now: set[Fact]) -> None:
        waiting, done = [e], set()
        while waiting:
            done.add(e := waiting.pop())
            waiting += [v for o, a, v in now if o == e and a == ":person/parts" and v not in done]
            now -= {fact for fact in now if fact[0] == e or (fact[1] in REFS and fact[2] == e)}
