"""What checks say, in each language: what is wrong in a file, and what was found."""

from __future__ import annotations

from typing import Final

from wicketgate.explain.answer import Say
from wicketgate.explain.words import CATALOGUE, LANGUAGES, Language

CHECK: Final[dict[str, tuple[str, str]]] = {
    "sign-pass": ("ok  ", "合格"),
    "sign-fail": ("FAIL", "不合格"),
    "sign-unknown": ("?   ", "不明"),
    "never": ("never", "禁止"),
    "always": ("always", "必須"),
    "summary": (
        "Hold: {pass}. Do not hold: {fail}. Cannot be told: {unknown}. Revision {revision}.",
        "合格: {pass} 件、不合格: {fail} 件、不明: {unknown} 件 (リビジョン {revision})",
    ),
    "by": (" by {endpoint}", "{endpoint} を経由して "),
    "tunnel-passes": (
        "{principal} from {source} reaches {target} ({interface}){by}: {what}",
        "{principal} ({source}) は {by}{target} ({interface}) に接続できます: {what}",
    ),
    "tunnel-not": (
        "{principal} from {source} does not reach {target} ({interface}){by}: {what}",
        "{principal} ({source}) は {by}{target} ({interface}) に接続できません: {what}",
    ),
    "packet-passes": (
        "{sender} reaches {target} ({interface}) from {source}: {what}",
        "{sender} ({source}) は {target} ({interface}) に到達できます: {what}",
    ),
    "packet-not": (
        "{sender} does not reach {target} ({interface}) from {source}: {what}",
        "{sender} ({source}) は {target} ({interface}) に到達できません: {what}",
    ),
    "more": ("and {count} more", "ほか {count} 件"),
    "depends": (
        "it depends on what cannot be known beforehand: {what}",
        "事前にわからない次の条件によります: {what}",
    ),
    "first-key": (
        "once {principal} has an access key that is active",
        "{principal} が有効なアクセスキーを持った場合",
    ),
    "first-session": ("once somebody has assumed {principal}", "{principal} が引き受けられた場合"),
    "first-run": ("once {instance}, which is {state}, runs", "{instance} (現在 {state}) が起動した場合"),
    "no-family": ("they have no address family in common", "共通のアドレスファミリーがありません"),
    "step": ("{step}: {reason}", "{step}: {reason}"),
    "kind-never": ("What is never to be reached is.", "到達できてはならないものに到達できます。"),
    "kind-always": ("What is always to be reached is not.", "到達できるべきものに到達できません。"),
    "kind-unknown": ("It cannot be told whether a check holds.", "チェックの合否を判断できません。"),
    # -- mistakes in a file
    "not-yaml": ("not YAML: {reason}", "YAML として読み取れません: {reason}"),
    "found": ("found {found}, expected {expected}", "{found} は使えません。{expected} を書いてください"),
    "found-mapping": ("found a mapping, expected {expected}", "マッピングは使えません。{expected} を書いてください"),
    "found-list": ("found a list, expected {expected}", "リストは使えません。{expected} を書いてください"),
    "found-nothing": ("the file is empty, expected {expected}", "ファイルが空です。{expected} を書いてください"),
    "expected-file": ("a mapping with the one key checks", "checks だけをキーとするマッピング"),
    "expected-checks": ("a list of checks, at least one", "1 つ以上のチェックのリスト"),
    "expected-check": (
        "a check: a mapping with never or always, and to",
        "チェック (never または always と、to を含むマッピング)",
    ),
    "expected-key": ("one of {keys}", "次のいずれか: {keys}"),
    "expected-verb": (
        "exactly one of never and always, with the check's name",
        "never か always のどちらか 1 つと、チェックの名前",
    ),
    "expected-needed": ("a mapping that also has {key}", "{key} も含むマッピング"),
    "expected-name": ("a name that no other check has", "ほかのチェックと重複しない名前"),
    "expected-once": ("each key once", "重複しないキー"),
    "expected-texts": ("a text or a list of texts", "テキスト、またはテキストのリスト"),
    "expected-port": (
        "a port as 22, 8000-8080, tcp 22 or udp 53, or icmp, icmp 8, icmpv6, protocol 47, any",
        "22、8000-8080、tcp 22、udp 53、icmp、icmp 8、icmpv6、protocol 47、any のような指定",
    ),
    "expected-tcp": (
        "a TCP port from 1 to 65535, or any: nothing else comes out of tunnels",
        "1 から 65535 までの TCP ポート、または any (トンネルは TCP だけです)",
    ),
    "expected-duration": ("seconds from 1 to {most}", "1 から {most} までの秒数"),
    "expected-no-duration": (
        "no duration: what is never to be reached is not to be reached for any",
        "duration なし (never はすべての時間について確認します)",
    ),
    "expected-tunnels-only": (
        "who, or clients' addresses in from: machines send without endpoints",
        "who、またはクライアントのアドレスを指定した from (マシン間の通信はエンドポイントを経由しません)",
    ),
    "expected-who": (
        "principals: anyone, root, user NAME, role NAME, role NAME/SESSION, iam-group NAME, tag KEY=VALUE, "
        "or one of these after not",
        "anyone、root、user 名前、role 名前、role 名前/セッション、iam-group 名前、tag キー=値 のいずれか "
        "(先頭に not も可)",
    ),
    "expected-nobody": (
        "principals of which there is at least one",
        "該当するプリンシパルが 1 つ以上ある指定",
    ),
    "expected-machines": (
        "machines: everything, group NAME, instance NAME, tag KEY=VALUE, an id (i-, eni-, sg-, subnet-, vpc-), an "
        "address or range, or one of these after not",
        "everything、group 名前、instance 名前、tag キー=値、ID (i-、eni-、sg-、subnet-、vpc-)、アドレス、範囲の"
        "いずれか (先頭に not も可)",
    ),
    "expected-machine": (
        "machines of which there is at least one",
        "該当するマシンが 1 つ以上ある指定",
    ),
    "expected-endpoints": (
        "endpoints: any, an id (eice-), tag KEY=VALUE, or one of these after not",
        "any、ID (eice-)、tag キー=値 のいずれか (先頭に not も可)",
    ),
    "expected-endpoint": (
        "endpoints of which there is at least one",
        "該当するエンドポイントが 1 つ以上ある指定",
    ),
    "expected-clients": (
        "clients' addresses: anywhere, internet, an address or a range such as 203.0.113.0/24, or one of these after "
        "not",
        "anywhere、internet、アドレス、203.0.113.0/24 のような範囲のいずれか (先頭に not も可)",
    ),
}
"""Key -> English, Japanese."""

_ALL: Final = {**CATALOGUE, **CHECK}
_BETWEEN: Final[dict[Language, str]] = {"en": ", ", "ja": "、"}


def text(say: Say, language: Language = "en") -> str:
    """A sentence in a language."""
    facts = dict(say.facts)
    for name, parts in say.parts.items():
        facts[name] = _BETWEEN[language].join(text(part, language) for part in parts)
    return _ALL[say.key][LANGUAGES.index(language)].format(**facts)
