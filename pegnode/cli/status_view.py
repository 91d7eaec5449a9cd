"""How `peg status` looks: the members in one table, then what is the matter, each thing once, with who says so."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from bridge.l1.states import L1State
from pegnode.cli.terminal import coins, out, print_fields, print_table
from pegnode.rpc.results import HaltReply, JournalReply, MemberReply, PegInfoReply, StatusReply
from pegnode.wording import age, listed, moment, time_text

MOST_FINDINGS_TOLD: Final = 10
MANY: Final = 5
"""From so many names on a list of all is no help."""
HALT_MEANS: Final = (
    "whoever is halted votes for no deposit and no withdrawal, and signs none. With less than a quorum of others left, "
    "no deposit is credited and no withdrawal paid. Transfers go on."
)
HALT_HELP: Final = "A halt does not clear itself, nor by a restart: see 'After a halt' in docs/operating.md"
STALL_HELP: Final = "see 'When the chain stands' in docs/operating.md"
GUILT_MEANS: Final = "A proof ends nobody's right to vote by itself: see 'A key that signed twice' in docs/operating.md"
EVIDENCE_HELP: Final = "peg evidence list shows what was signed"
_MOMENT: Final = re.compile(r"[\d-]*\s?\d\d:\d\d:\d\d UTC \([^)]*\)")


def print_members(replies: Mapping[str, StatusReply | None], states: Mapping[str, str]) -> None:
    """The newest block, and a row for each node. states: of those that don't answer."""
    answers = [reply for reply in replies.values() if reply is not None]
    if answers:
        print_headline(max(answers, key=lambda reply: (reply.height, reply.view)))
    print_table(
        ("member", "state", "block ", "view ", "anchor ", "L1 ", "Bitcoin node", "peers ", "mempool "),
        [_row(name, reply, states.get(name, "")) for name, reply in replies.items()],
        "no members",
    )
    out.print()


def print_headline(reply: StatusReply) -> None:
    """Where the chain is, and whose turn it is."""
    leader = next((member.name for member in reply.members if member.member == reply.leader), str(reply.leader))
    final = f"block {reply.height} became final {age(reply.final_age_ms)} ago"
    out.print(f"{final}; {leader} leads view {reply.view}", markup=False)


def _row(name: str, reply: StatusReply | None, state: str) -> tuple[str, ...]:
    if reply is None:
        return (name, state, *("-",) * 7)
    return (
        name,
        state_of(reply),
        str(reply.height),
        str(reply.view),
        str(reply.anchor.height),
        "-" if reply.l1.height is None else str(reply.l1.height),
        reply.l1.state,
        str(sum(member.connected for member in reply.members if member.member != reply.member)),
        str(reply.mempool_transactions),
    )


def state_of(reply: StatusReply) -> str:
    """The gravest thing, in a word or two."""
    if reply.halted:
        return "HALTED"
    if reply.stall is not None:
        return "STALLED"
    if reply.waiting_for:
        return "waiting"
    return f"catching up to {reply.best_known_height}" if reply.syncing else "running"


def print_summary(replies: Mapping[str, StatusReply]) -> None:
    """What the nodes that answer vote, keep, reach and run, in two lines for all; what is amiss is told elsewhere."""
    if replies:
        votes = [_newest_votes(replies), _journals(replies), _proofs(replies)]
        links = [_delays(replies), *_usual_software(replies)]
        print_fields({"votes": "; ".join(filter(None, votes)), "links": "; ".join(links)})
        out.print()


def _newest_votes(replies: Mapping[str, StatusReply]) -> str:
    """Of each member, by whoever heard the newest."""
    newest: dict[int, int] = {}
    for reply in replies.values():
        for member in reply.members:
            if member.last_vote_view is not None:
                newest[member.member] = max(member.last_vote_view, newest.get(member.member, 0))
    if not newest:
        return "none heard yet"
    silent = [member.name for member in next(iter(replies.values())).members if member.member not in newest]
    words = f"newest in {_range('view', newest.values())}"
    return f"{words}, none of {listed(silent)}" if silent else words


def _journals(replies: Mapping[str, StatusReply]) -> str:
    journals = {name: reply.journal for name, reply in replies.items() if reply.journal is not None}
    others = [f"{name}'s {journal.state}" for name, journal in journals.items() if journal.state != "kept"]
    return f"journals kept but {listed(others)}" if others else "journals kept" if journals else ""


def _proofs(replies: Mapping[str, StatusReply]) -> str:
    count = sum(_most_proofs(replies).values())
    return f"{count} {'proof' if count == 1 else 'proofs'} of guilt" if count else "no proof of guilt"


def _delays(replies: Mapping[str, StatusReply]) -> str:
    measured = [member.round_trip_ms for reply in replies.values() for member in reply.members]
    measured_ms = [round(round_trip_ms) for round_trip_ms in measured if round_trip_ms is not None]
    return f"round trips of {_range('', measured_ms)} ms" if measured_ms else "no round trip measured yet"


def _usual_software(replies: Mapping[str, StatusReply]) -> list[str]:
    runs = _software(replies)
    return [f"all run {next(iter(runs.values()))}"] if len(set(runs.values())) == 1 else []


def _range(noun: str, values: Iterable[int]) -> str:
    """`view 7`, or `views 3 to 7`."""
    least, *_, most = sorted([*values] * 2)
    return f"{noun} {most}".strip() if least == most else f"{noun and noun + 's'} {least} to {most}".strip()


def print_links(replies: Mapping[str, StatusReply | None]) -> None:
    """Who reaches whom: a row for each node, a column for each member by its index, round trips in milliseconds."""
    answers = {name: reply for name, reply in replies.items() if reply is not None}
    if not answers:
        return
    members = next(iter(answers.values())).members
    heads = ["to", "", *(str(member.member) for member in members)]
    rows = [
        [name, "" if reply.member is None else str(reply.member), *(_round_trip(reply, it) for it in reply.members)]
        for name, reply in answers.items()
    ]
    names = max(len(row[0]) for row in (heads, *rows))
    cells = max(len(cell) for row in (heads, *rows) for cell in row[1:])
    out.print("round trips in ms; - is no connection, . none measured yet", markup=False)
    for row in (heads, *rows):
        out.print(f"{row[0]:<{names}} {' '.join(f'{cell:>{cells}}' for cell in row[1:])}", markup=False)
    out.print()


def _round_trip(reply: StatusReply, member: MemberReply) -> str:
    if member.member == reply.member:
        return ""
    if not member.connected:
        return "-"
    return "." if member.round_trip_ms is None else f"{member.round_trip_ms:.0f}"


def print_peers(reply: StatusReply) -> None:
    """What one node sees of each member."""
    now_ms = _now_ms(reply)
    print_table(
        ("member", "connection", "ms ", "block ", "last vote", "heard ", "L1 ", "runs"),
        [_peer_row(reply, member, now_ms) for member in reply.members],
        "no members",
    )
    out.print()
    fields = {"views": f"end after {reply.timeout_ms / 1000:.1f} s in which a block is due and none comes"}
    if reply.journal is not None:
        fields["journal"] = _journal_text(reply.journal)
    print_fields(fields)
    out.print()


def _peer_row(reply: StatusReply, member: MemberReply, now_ms: int) -> tuple[str, ...]:
    words = ["this node" if member.member == reply.member else "connected" if member.connected else "missing"]
    if member.missing_since_ms is not None:
        words.append(age(now_ms - member.missing_since_ms))
    return (
        f"{member.name} (leads)" if member.member == reply.leader else member.name,
        " ".join(words),
        "-" if member.round_trip_ms is None else f"{member.round_trip_ms:.0f}",
        "-" if member.final_height is None else str(member.final_height),
        "-" if member.last_vote_view is None else f"{member.last_vote_view} {member.last_vote_kind}",
        "-" if member.last_vote_ms is None else age(now_ms - member.last_vote_ms),
        "-" if member.l1_buried_height is None else str(member.l1_buried_height),
        member.software or "-",
    )


def _journal_text(journal: JournalReply) -> str:
    newest = "" if journal.newest_vote_view is None else f"; newest vote in view {journal.newest_vote_view}"
    if journal.state == "renewing":
        newest = f"; signs nothing before {journal.needed} others are heard, {journal.heard_from} were"
    return f"{journal.state}; nothing at or below view {journal.floor_view} is signed{newest}"


def print_alarms(replies: Mapping[str, StatusReply]) -> None:
    """Stolen keys, a chain that stands, proofs of guilt, members that run something else: each told once."""
    for name, reply in replies.items():
        if reply.key_alarm is not None:
            style = "bold red" if out.is_terminal else ""
            out.print(f"{name}: KEY ALARM: {reply.key_alarm}", markup=False, style=style)
            out.print()
    _print_stalls({name: reply for name, reply in replies.items() if reply.stall is not None}, len(replies))
    notes = [*_guilty(replies), *_other_software(replies)]
    for note in notes:
        out.print(note, markup=False)
    if notes:
        out.print()


def _print_stalls(stalled: Mapping[str, StatusReply], total: int) -> None:
    """Why the chain stands, once for all that say the same. Their clocks and their moments may differ a little."""
    reasons: dict[str, dict[str, StatusReply]] = {}
    for name, reply in stalled.items():
        if reply.stall is not None:
            reasons.setdefault(_MOMENT.sub("", reply.stall.why), {})[name] = reply
    for members in reasons.values():
        first = min(members.values(), key=lambda reply: reply.stall.since_ms if reply.stall else 0)
        if first.stall is not None:
            since = moment(first.stall.since_ms, _now_ms(first))
            says = "says" if len(members) == 1 else "say"
            out.print(f"STALLED since {since}, {says} {_listed_of(list(members), total)}:", markup=False)
            for part in first.stall.why.split("; "):
                out.print(f"    {part}", markup=False)
    if reasons:
        out.print(f"    {STALL_HELP}", markup=False)
        out.print()


def _guilty(replies: Mapping[str, StatusReply]) -> list[str]:
    """Who signed against the rules, by the most proofs that any node keeps, and what follows from it: once for all."""
    guilty = [
        f"{name} signed two votes of which no honest member signs both: "
        f"{count} {'proof is' if count == 1 else 'proofs are'} kept; {EVIDENCE_HELP}"
        for name, count in _most_proofs(replies).items()
        if count
    ]
    return [*guilty, GUILT_MEANS] if guilty else []


def _most_proofs(replies: Mapping[str, StatusReply]) -> dict[str, int]:
    """Against each member, as many as any node keeps."""
    most: dict[str, int] = {}
    for reply in replies.values():
        for member in reply.members:
            most[member.name] = max(member.equivocations, most.get(member.name, 0))
    return most


def _other_software(replies: Mapping[str, StatusReply]) -> list[str]:
    """Members that run something else than most do, by what they say of themselves."""
    runs = _software(replies)
    usual, _ = Counter(runs.values()).most_common(1)[0] if runs else ("", 0)
    return [f"{name} runs {own}, most run {usual}" for name, own in sorted(runs.items()) if own != usual]


def _software(replies: Mapping[str, StatusReply]) -> dict[str, str]:
    """By member's name, of those who were met."""
    return {member.name: member.software for reply in replies.values() for member in reply.members if member.software}


def print_halts(halted: Mapping[str, StatusReply]) -> None:
    """Why members are halted, each finding once with those who made it, what still works, and what to do."""
    if not halted:
        return
    out.print(f"{listed(list(halted))} HALTED: {HALT_MEANS}", markup=False)
    findings: dict[tuple[str, str], dict[str, HaltReply]] = {}
    for name, reply in halted.items():
        for item in reply.halts:
            findings.setdefault((item.kind, item.subject), {})[name] = item
    for members in list(findings.values())[:MOST_FINDINGS_TOLD]:
        first = min(members.values(), key=lambda item: item.since_ms)
        out.print(f"    {first.detail}", markup=False)
        out.print(
            f"        {first.kind}, found by {listed(list(members))}, at {time_text(first.since_ms)}", markup=False
        )
    if len(findings) > MOST_FINDINGS_TOLD:
        out.print(f"    and {len(findings) - MOST_FINDINGS_TOLD} more: see them with --json", markup=False)
    remedies = {item.remedy for members in findings.values() for item in members.values()}
    for remedy in sorted(remedies):
        out.print(f"    what to do: {remedy}", markup=False)
    out.print(f"    {HALT_HELP}", markup=False)
    out.print()


def print_troubles(replies: Mapping[str, StatusReply]) -> None:
    """What is the matter with each node and what to do, once for those of which the same is to be said."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, reply in replies.items():
        alike.setdefault(tuple(troubles_of(reply)), []).append(name)
    for troubles, names in alike.items():
        if troubles:
            out.print(f"{_listed_of(names, len(replies))}:", markup=False)
            for trouble in troubles:
                out.print(f"    {trouble}", markup=False)
            out.print()


def troubles_of(reply: StatusReply) -> list[str]:
    """What a node waits for, whom it lacks unless its stall says so, and what ails its journal and its Bitcoin node."""
    away = [member.name for member in reply.members if not member.connected and member.member != reply.member]
    troubles = [f"waits for {missing}" for missing in reply.waiting_for]
    if away and reply.stall is None:
        troubles.append(f"not connected to {listed(away)}")
    journal = reply.journal
    if journal is not None and journal.state == "kept" and reply.view <= journal.floor_view:  # it was renewed
        troubles.append(f"this member is silent until view {journal.floor_view + 1}, now in {reply.view}")
    passive = [member.name for member in reply.members if member.connected and member.missed_turn]
    if passive:
        troubles.append(f"{listed(passive)} let the last turn to lead pass, and said nothing since")
    l1 = reply.l1
    if l1.state != L1State.OK:
        since = f", for {age(_now_ms(reply) - l1.since_ms)}" if l1.since_ms else ""
        troubles += [f"its Bitcoin node is {l1.state}{since}: {l1.cause}", f"what to do: {l1.remedy}"]
    return troubles


def _listed_of(names: list[str], total: int) -> str:
    """Names as people list them; if they are those of all that answer, and many, just that."""
    return "all that answer" if len(names) == total >= MANY else listed(names)


def _now_ms(reply: StatusReply) -> int:
    return reply.started_ms + reply.uptime_ms


def print_peg(peg: PegInfoReply) -> None:
    """The five terms, and whether they are equal."""
    print_fields(
        {
            "reserves": coins(peg.reserves_sats),
            "deficit": coins(peg.deficit_sats),
            "supply": coins(peg.supply_sats),
            "unsettled": coins(peg.unsettled_sats),
            "fund": coins(peg.fund_sats),
        }
    )
    sign = "=" if peg.equality else "IS NOT"
    out.print(f"reserves + deficit {sign} supply + unsettled + fund", markup=False)


def print_more(*, peers: bool) -> None:
    """The options that show more than was shown of a local federation."""
    options = "--node NAME shows" if peers else "--peers shows each round trip, --node NAME"
    out.print()
    out.print(f"{options} all that one member sees of each", markup=False)
