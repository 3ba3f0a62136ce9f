"""What lint says, in each language. Rules and places in it are sentences of the catalogue of explanations.

`kind-WG...` is what a kind is about, `WG...` what was found.
"""

from __future__ import annotations

from typing import Final

from wicketgate.explain.answer import Say
from wicketgate.explain.words import CATALOGUE, LANGUAGES, Language

LINT: Final[dict[str, tuple[str, str]]] = {
    "severity-error": ("error", "エラー"),
    "severity-warning": ("warning", "警告"),
    "severity-note": ("note", "注意"),
    "fix-keeps": ("Fix; everything that passes still does:", "修正方法 (通信はすべて維持されます):"),
    "fix-narrows": (
        "Fix; it narrows what passes, so make sure that nobody needs it:",
        "修正方法 (許可が狭まります。必要な通信がないことを確認してください):",
    ),
    "fix-opens": (
        "Fix; everything that passes still does, and other members of the group may then connect too:",
        "修正方法 (通信はすべて維持され、グループのほかのメンバーも接続できるようになります):",
    ),
    "not-looked-at": ("Not looked at: {what}", "未確認: {what}"),
    "unknown-counters": (
        "rules that nobody uses, for want of counters (root gets them with --counters where netd runs)",
        "使われていないルール (カウンターがありません。netd が動くホストで root が --counters を付けると確認できます)",
    ),
    "unknown-tunnels": (
        "how many tunnels are open, which only the gateway's host knows",
        "開いているトンネルの数 (ゲートウェイのホストでのみ確認できます)",
    ),
    "summary": (
        "Errors: {error}. Warnings: {warning}. Notes: {note}. Revision {revision}.",
        "エラー: {error} 件、警告: {warning} 件、注意: {note} 件 (リビジョン {revision})",
    ),
    "managed-policy": ("managed policy {arn}", "管理ポリシー {arn}"),
    # -- rules
    "kind-WG001": (
        "A rule lets every address reach a port that is not for everybody.",
        "公開すべきでないポートに、すべてのアドレスからの接続を許可するルール",
    ),
    "WG001": (
        "{rule} of {group} ({name}) lets every address reach ports that are not for everybody: {ports}",
        "{group} ({name}) の {rule} は、公開すべきでないポートへの接続をすべてのアドレスに許可しています: {ports}",
    ),
    "kind-WG002": ("A rule lets in everything from everywhere.", "すべての送信元からのすべての通信を許可するルール"),
    "WG002": (
        "{rule} of {group} ({name}) lets in everything from everywhere",
        "{group} ({name}) の {rule} は、すべての送信元からのすべての通信を許可しています",
    ),
    "kind-WG003": (
        "Rules together let every address reach a port that is not for everybody, though none of them does alone.",
        "単独ではなく組み合わせにより、公開すべきでないポートをすべてのアドレスに許可しているルール",
    ),
    "WG003": (
        "together, rules of {group} ({name}) let every IPv{version} address reach ports that are not for everybody: "
        "{ports}",
        "{group} ({name}) のルールは全体として、公開すべきでないポートへの接続をすべての IPv{version} アドレスに"
        "許可しています: {ports}",
    ),
    "kind-WG004": (
        "A rule names a group that is gone or no longer peered with.",
        "存在しない、またはピアリングが終了したグループを参照するルール",
    ),
    "WG004": (
        "{rule} of {group} ({name}) allows nothing: the group that it names is gone or no longer peered with",
        "{group} ({name}) の {rule} は何も許可していません。参照先のグループが存在しないか、ピアリングが終了しています",
    ),
    "kind-WG005": ("A rule names a group that nothing carries.", "どこにも付けられていないグループを参照するルール"),
    "WG005": (
        "{rule} of {group} ({name}) allows nothing now: no network interface carries the group that it names",
        "{group} ({name}) の {rule} は現在何も許可していません。"
        "参照先のグループを持つネットワークインターフェイスがありません",
    ),
    "kind-WG006": ("A rule matches no packet that there can be.", "どのパケットにも一致しないルール"),
    "WG006": (
        "{rule} of {group} ({name}) matches no packet: its list is empty, or its protocol or VPC does not have this "
        "address family",
        "{group} ({name}) の {rule} はどのパケットにも一致しません。リストが空か、"
        "プロトコルまたは VPC にこのアドレスファミリーがありません",
    ),
    "kind-WG007": (
        "A rule allows nothing that other rules of its group do not allow.",
        "同じグループのほかのルールがすべて許可している、不要なルール",
    ),
    "WG007": (
        "{rule} of {group} ({name}) is redundant; the group allows all of it by: {others}",
        "{group} ({name}) の {rule} は不要です。同じグループの次のルールがすべて許可しています: {others}",
    ),
    "kind-WG008": (
        "On every interface that has a rule, its other groups allow the same.",
        "付けられているすべてのインターフェイスで、ほかのグループが同じ許可をしているルール",
    ),
    "WG008": (
        "{rule} of {group} ({name}) changes nothing: every network interface with the group has others that "
        "allow all of it, one by: {others}",
        "{group} ({name}) の {rule} は効果がありません。このグループを持つどのネットワークインターフェイスでも、"
        "ほかのグループがすべて許可しています。例: {others}",
    ),
    "kind-WG009": ("A rule let nothing through.", "一度も使われていないルール"),
    "WG009": (
        "{rule} of {group} ({name}) let no connection through since {since}",
        "{group} ({name}) の {rule} を通った接続は {since} 以降ありません",
    ),
    "kind-WG010": (
        "Connections by a rule are not tracked: removing it cuts them at once.",
        "接続が追跡されず、削除すると直ちに切断されるルール",
    ),
    "WG010": (
        "connections by {rule} of {group} ({name}) are not tracked, because all ports to any address are allowed the "
        "other way: removing the rule cuts them at once",
        "{group} ({name}) の {rule} による接続は、逆方向で任意のアドレスへの全ポートが許可されているため追跡されま"
        "せん。ルールを削除すると接続は直ちに切れます",
    ),
    "kind-WG011": ("Nothing carries a group and no rule names it.", "使われていないグループ"),
    "WG011": (
        "nothing carries {group} ({name}), and no rule names it",
        "{group} ({name}) はどこにも付けられておらず、参照するルールもありません",
    ),
    # -- endpoints
    "kind-WG020": (
        "Inbound rules of an endpoint's group do nothing: IAM says who may use an endpoint.",
        "効果のない、エンドポイントのグループのインバウンドルール",
    ),
    "WG020": (
        "{rule} of {group} ({name}) does nothing: endpoints alone carry the group, and IAM says who may use them",
        "{group} ({name}) の {rule} は効果がありません。このグループを持つのはエンドポイントだけで、"
        "利用できるユーザーは IAM が決めます",
    ),
    "kind-WG021": ("An endpoint reaches no network interface.", "どこにも接続できないエンドポイント"),
    "WG021": (
        "by the groups, {endpoint} reaches no network interface of {vpc} on any port that is offered",
        "セキュリティグループにより、{endpoint} は {vpc} のどのネットワークインターフェイスにも、"
        "利用できるどのポートでも接続できません",
    ),
    "kind-WG022": (
        "No endpoint reaches an instance's interface.",
        "どのエンドポイントからも接続できないインターフェイス",
    ),
    "WG022": (
        "by the groups, no endpoint of {vpc} reaches {interface} of {instance} on any port that is offered",
        "セキュリティグループにより、{vpc} のどのエンドポイントも {instance} の {interface} に、"
        "利用できるどのポートでも接続できません",
    ),
    "kind-WG023": (
        "A rule stops working when client IP preservation is switched on.",
        "クライアント IP の保持を有効にすると効かなくなるルール",
    ),
    "WG023": (
        "{rule} of {group} ({name}) lets {endpoint} in by its own address: with client IP preservation on, the source "
        "is the client's, outside {range}",
        "{group} ({name}) の {rule} は {endpoint} をそのアドレスで許可しています。クライアント IP の保持を有効に"
        "すると、送信元はクライアントのアドレスになり {range} に含まれません",
    ),
    "kind-WG024": (
        "A rule stops working when client IP preservation is switched off.",
        "クライアント IP の保持を無効にすると効かなくなるルール",
    ),
    "WG024": (
        "{rule} of {group} ({name}) lets clients of {endpoint} in by their addresses: with client IP preservation off, "
        "the source is the endpoint's own, outside {range}",
        "{group} ({name}) の {rule} は {endpoint} のクライアントをそのアドレスで許可しています。"
        "クライアント IP の保持を無効にすると、送信元はエンドポイントのアドレスになり {range} に含まれません",
    ),
    "kind-WG025": (
        "A rule is for addresses that nothing here sends from.",
        "送信元になり得ないアドレス範囲を許可するルール",
    ),
    "WG025": (
        "{rule} of {group} ({name}) matches no packet: no endpoint of the VPC preserves client addresses, and nothing "
        "else sends from addresses beyond the VPC and those that it is peered with",
        "{group} ({name}) の {rule} はどのパケットにも一致しません。VPC にクライアント IP を保持するエンドポイントが"
        "なく、VPC とそのピアリング先以外のアドレスを送信元にするものもありません",
    ),
    # -- policies
    "kind-WG030": (
        "A policy denies clients that leave out maxTunnelDuration.",
        "maxTunnelDuration を省略したクライアントを拒否するポリシー",
    ),
    "WG030": (
        "statement {statement} ({where}) allows at most {cap} s, but clients that leave out maxTunnelDuration ask for "
        "{longest} s and are denied: let them ask with --max-tunnel-duration {cap}",
        "ステートメント {statement} ({where}) が許可するのは最大 {cap} 秒ですが、maxTunnelDuration を省略した"
        "クライアントは {longest} 秒を要求し、拒否されます。--max-tunnel-duration {cap} を指定してください",
    ),
    "kind-WG031": ("A policy names an endpoint that does not exist.", "存在しないエンドポイントを指定するポリシー"),
    "WG031": (
        "statement {statement} ({where}) names an endpoint that does not exist: {arn}",
        "ステートメント {statement} ({where}) は存在しないエンドポイントを指定しています: {arn}",
    ),
    "kind-WG032": ("A policy names addresses that nothing has.", "使われていないアドレスを指定するポリシー"),
    "WG032": (
        "statement {statement} ({where}) names addresses that no network interface has: {value}",
        "ステートメント {statement} ({where}) は、どのネットワークインターフェイスにもないアドレスを指定して"
        "います: {value}",
    ),
    "kind-WG033": ("A policy names a port that is not offered.", "利用できないポートを指定するポリシー"),
    "WG033": (
        "statement {statement} ({where}) names port {value}, but tunnels lead to {ports} only (allowed_ports)",
        "ステートメント {statement} ({where}) はポート {value} を指定していますが、"
        "トンネルを開けるのは {ports} だけです (allowed_ports)",
    ),
    "kind-WG034": ("A policy cannot be read, and denies everything.", "読み取れず、すべてを拒否するポリシー"),
    "WG034": (
        "a policy cannot be read, so everything is denied to those who have it ({where}): {reason}",
        "ポリシーを読み取れないため、それを持つ者にはすべてが拒否されます ({where}): {reason}",
    ),
    # -- quotas
    "kind-WG040": ("A group has nearly as many rules as it may.", "ルール数が上限に近いグループ"),
    "WG040": (
        "{group} ({name}) has {used} of {limit} rules (rules_per_group)",
        "{group} ({name}) のルールは {limit} 件中 {used} 件です (rules_per_group)",
    ),
    "kind-WG041": (
        "A network interface has nearly as many rules as it may.",
        "ルール数が上限に近いネットワークインターフェイス",
    ),
    "WG041": (
        "the groups of {interface} have {used} of {limit} rules (rules_per_interface)",
        "{interface} のグループのルールは {limit} 件中 {used} 件です (rules_per_interface)",
    ),
    "kind-WG042": (
        "A network interface has nearly as many groups as it may.",
        "グループ数が上限に近いネットワークインターフェイス",
    ),
    "WG042": (
        "{interface} carries {used} of {limit} groups (groups_per_interface)",
        "{interface} のグループは {limit} 件中 {used} 件です (groups_per_interface)",
    ),
    "kind-WG043": ("There are nearly as many endpoints as there may be.", "エンドポイント数が上限に近い場所"),
    "WG043": (
        "{place} has {used} of {limit} EC2 Instance Connect Endpoints",
        "{place} の EC2 Instance Connect Endpoint は {limit} 個中 {used} 個です",
    ),
    "kind-WG044": (
        "An endpoint has nearly as many tunnels open as it may.",
        "トンネル数が上限に近いエンドポイント",
    ),
    "WG044": (
        "{endpoint} has {used} of {limit} tunnels open (max_tunnels_per_endpoint)",
        "{endpoint} のトンネルは {limit} 本中 {used} 本が使用中です (max_tunnels_per_endpoint)",
    ),
    "kind-WG045": (
        "A prefix list takes more of the rule quotas than its entries need.",
        "エントリ数に対して最大エントリ数が大きすぎるプレフィックスリスト",
    ),
    "WG045": (
        "{list} ({name}) has {used} entries but counts as {limit} rules wherever it is named: {fitting} would do",
        "{list} ({name}) のエントリは {used} 件ですが、参照するルールごとに {limit} 件として数えられます。"
        "{fitting} 件で足ります",
    ),
}
"""Key -> English, Japanese."""

_ALL: Final = {**CATALOGUE, **LINT}
_BETWEEN: Final[dict[Language, str]] = {"en": "; ", "ja": "、"}


def text(say: Say, language: Language = "en") -> str:
    """A sentence in a language."""
    facts = dict(say.facts)
    for name, parts in say.parts.items():
        facts[name] = _BETWEEN[language].join(text(part, language) for part in parts)
    return _ALL[say.key][LANGUAGES.index(language)].format(**facts)
