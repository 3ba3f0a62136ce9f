"""`wicketgate explain --prove` and `--probe`: the real connection beside the explanation.

The connection is made with the caller's own credentials, so it is compared with the explanation for the caller himself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from wicketgate import __version__
from wicketgate.cli.explain_words import Language, say
from wicketgate.client.explaining import Deployment
from wicketgate.client.proof import BANNER_SECONDS, Happened, compared

TRIES = 3
"""How often both are tried again when the state changed in between."""

Data = dict[str, Any]


def with_connection(
    deployment: Deployment, question: Mapping[str, Any], data: Data, language: Language, *, probe: bool, prove: bool
) -> Data:
    """The explanation with steps of a real connection behind its own. Raises what the client's calls do.

    A contradiction goes to standard error with everything that is needed to look into it; the outcome is then unknown.
    """
    names = [name for name, wanted in (("prove", prove), ("probe", probe)) if wanted]
    if not data["asked"]["endpoint"]:
        text = say("no-endpoint", language)
        return _extended(data, [_step(name, "no-endpoint", "unknown", text, language) for name in names], language)
    own_question, own = _own(deployment, question, data, language)
    for _ in range(TRIES):
        happened = deployment.attempt(own["asked"], question.get("MaxTunnelDuration"), banner=probe)
        key, outcome = compared(own["outcome"], happened)
        if key != "mismatch":
            break
        before, own = own, deployment.explain({**own_question, "Language": language})
        if own["revision"] == before["revision"]:
            break  # nothing changed in between: they do contradict each other
    report = _report(own_question, own, happened, agrees=key != "mismatch")
    if key == "mismatch":
        click.echo(f"{say('mismatch', language)}\n{json.dumps(report, ensure_ascii=False, indent=2)}", err=True)
    text = say(key, language, told=happened.told)
    same = all(own["asked"][name] == data["asked"][name] for name in ("principalArn", "from"))
    if not same:
        text += f" ({say('own', language, who=own['asked']['principal'], source=own['asked']['from'])})"
    steps = [_step("prove", key, outcome, text, language)] if prove else []
    if probe:
        steps.append(_probed(happened, language))
    counts = same or happened.opened or key == "mismatch"
    return _extended(data, steps, language, counts=counts) | {"proof": report}


def _own(
    deployment: Deployment, question: Mapping[str, Any], data: Data, language: Language
) -> tuple[dict[str, Any], Data]:
    """The question about the caller himself, and its answer: the same as was asked, if that was about him."""
    asked = data["asked"]
    own: dict[str, Any] = {"Target": asked["address"], "EndpointId": asked["endpoint"], "Port": int(asked["port"])}
    if "MaxTunnelDuration" in question:
        own["MaxTunnelDuration"] = question["MaxTunnelDuration"]
    return own, deployment.explain({**own, "Language": language})


def _probed(happened: Happened, language: Language) -> Data:
    """The step that says what answers."""
    if not happened.opened:
        key, outcome = "not-probed", "fail"
    elif not happened.banner:
        key, outcome = "silent", "fail"
    else:
        ssh = happened.banner.startswith("SSH-")  # RFC 4253 section 4.2
        key, outcome = ("banner", "pass") if ssh else ("no-ssh", "fail")
    text = say(key, language, told=happened.told, banner=happened.banner, seconds=f"{BANNER_SECONDS:.0f}")
    return _step("probe", key, outcome, text, language)


def _step(name: str, key: str, outcome: str, text: str, language: Language) -> Data:
    """A step in the form of the answer's own."""
    empty: Data = {"facts": {}, "decidedBy": "", "definedIn": "", "nearestMisses": []}
    return {"step": name, "name": say(name, language), "outcome": outcome, "key": key, "text": text, **empty}


def _extended(data: Data, steps: list[Data], language: Language, *, counts: bool = True) -> Data:
    """The answer with further steps; they have their part in the outcome if they count."""
    found = [data["outcome"], *(step["outcome"] for step in steps if counts)]
    mismatch = any(step["key"] == "mismatch" for step in steps)
    outcome = "unknown" if mismatch else "fail" if "fail" in found else "unknown" if "unknown" in found else "pass"
    text = say(f"result-{outcome}", language)
    told = [f"{say('sign-' + step['outcome'], language)} {step['name']}: {step['text']}" for step in steps]
    lines = [*data["lines"][:-2], *told, "", text]
    return {**data, "outcome": outcome, "text": text, "steps": [*data["steps"], *steps], "lines": lines}


def _report(question: Mapping[str, Any], explanation: Data, happened: Happened, *, agrees: bool) -> Data:
    """Everything that is needed to look into a contradiction."""
    return {
        "agrees": agrees,
        "version": __version__,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "question": dict(question),
        "revision": explanation["revision"],
        "explanation": explanation,
        "happened": happened._asdict(),
    }
