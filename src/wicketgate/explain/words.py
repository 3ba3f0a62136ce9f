"""The catalogue of sentences, in each language. Facts go into the braces.

Sentences that the engines have in English (why an endpoint does not dial, what kept an IAM statement) are taken over
from them: `words_engines`. What is wrong with a question: `words_asking`.
"""

from __future__ import annotations

from typing import Final, Literal

from wicketgate.explain.answer import Say
from wicketgate.explain.words_asking import ASKING
from wicketgate.explain.words_engines import ENGINES

Language = Literal["en", "ja"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "ja")

CATALOGUE: Final[dict[str, tuple[str, str]]] = {
    **ASKING,
    **ENGINES,
    # -- what the steps are called
    "step-credentials": ("credentials", "認証情報"),
    "step-iam": ("IAM", "IAM"),
    "step-endpoint": ("endpoint", "エンドポイント"),
    "step-limits": ("limits", "上限"),
    "step-target": ("target", "ターゲット"),
    "step-route": ("route", "経路"),
    "step-endpoint-outbound": ("endpoint's outbound rules", "エンドポイントのアウトバウンドルール"),
    "step-source-address": ("source address", "送信元アドレス"),
    "step-target-inbound": ("target's inbound rules", "ターゲットのインバウンドルール"),
    "step-tracking": ("connection tracking", "接続の追跡"),
    "step-probe": ("probe", "実接続"),
    "step-recorded": ("record", "記録"),
    "sign-pass": ("ok  ", "可  "),
    "sign-fail": ("FAIL", "不可"),
    "sign-unknown": ("?   ", "不明"),
    # -- attempts of the past
    "recorded-failed": (
        "{time}: request {requestId} was answered {errorCode}: {errorMessage}",
        "{time}: リクエスト {requestId} への応答は {errorCode} でした: {errorMessage}",
    ),
    "recorded-closed": (
        "{time}: the tunnel of request {requestId} ended with {closeCode}: {closeReason}",
        "{time}: リクエスト {requestId} のトンネルは {closeCode} で終了しました: {closeReason}",
    ),
    "recorded-opened": (
        "{time}: request {requestId} opened a tunnel",
        "{time}: リクエスト {requestId} によりトンネルが開かれました",
    ),
    "recorded-beyond": (
        "all of this passes, so what stopped it was beyond it: {answer}",
        "ここまではすべて可であり、失敗の原因はこれ以外にあります: {answer}",
    ),
    # -- credentials
    "key-valid": ("{principal} can sign with access key {key}", "{principal} はアクセスキー {key} で署名できます"),
    "key-none": ("{principal} has no access key", "{principal} にはアクセスキーがありません"),
    "session-none": (
        "{principal} has no session now: whether somebody can get one is for its trust policy to say",
        "{principal} のセッションは現在ありません。引き受けられるかどうかは信頼ポリシーによります",
    ),
    "key-unproven": (
        "whoever it was did not prove to hold access key {key}: {code}",
        "アクセスキー {key} の所有者であることが証明されませんでした: {code}",
    ),
    "key-inactive": ("access key {key} of {principal} is inactive", "{principal} のアクセスキー {key} は無効です"),
    "key-expired": (
        "the session of access key {key} ended at {time}",
        "アクセスキー {key} のセッションは {time} に終了しました",
    ),
    # -- IAM
    "iam-allowed": (
        "statement {statement} allows {action} on {resource}",
        "ステートメント {statement} が {resource} への {action} を許可しています",
    ),
    "iam-root": ("root may do everything", "ルートユーザーはすべて許可されています"),
    "iam-denied": (
        "statement {statement} denies {action} on {resource}",
        "ステートメント {statement} が {resource} への {action} を拒否しています",
    ),
    "iam-unreadable": (
        "a policy cannot be read, so it denies everything: {reason}",
        "読み取れないポリシーがあるため、すべて拒否されます: {reason}",
    ),
    "iam-nothing": (
        "no statement allows {action} on {resource}",
        "{resource} への {action} を許可するステートメントがありません",
    ),
    "iam-session": (
        "the session's own policy does not allow {action} on {resource}",
        "セッションポリシーが {resource} への {action} を許可していません",
    ),
    "iam-miss": (
        "statement {statement} would, but for: {kept}",
        "ステートメント {statement} は次の点を除けば許可します: {kept}",
    ),
    # -- endpoint
    "endpoint-none": (
        "{vpc} has no endpoint in a state in which tunnels open",
        "{vpc} にはトンネルを開ける状態のエンドポイントがありません",
    ),
    "endpoint-gone": ("{endpoint} does not exist", "{endpoint} は存在しません"),
    "endpoint-state": ("{endpoint} is in state {state}", "{endpoint} の状態は {state} です"),
    "endpoint-chosen": (
        "{endpoint} is in state {state}; the AWS CLI would choose it: the first of {where}",
        "{endpoint} の状態は {state} です。AWS CLI はこれを選びます ({where} の最初のもの)",
    ),
    "endpoint-not-ready": (
        "{endpoint} is in state {state}, in which no tunnel opens",
        "{endpoint} の状態は {state} で、トンネルを開けません",
    ),
    # -- limits
    "duration-over": (
        "a duration of {duration} s is over max_tunnel_duration, {limit} s",
        "要求された {duration} 秒は max_tunnel_duration ({limit} 秒) を超えています",
    ),
    "port-not-offered": (
        "port {port} is not among allowed_ports: {ports}",
        "ポート {port} は allowed_ports ({ports}) に含まれていません",
    ),
    "tunnels-full": (
        "{endpoint} has {open} tunnels open, its limit",
        "{endpoint} では上限の {open} 本のトンネルが開かれています",
    ),
    "limits-kept": (
        "port {port} is offered, {duration} s are within {limit} s, {open} of {most} tunnels are open",
        "ポート {port} は利用でき、{duration} 秒は {limit} 秒以内、トンネルは {most} 本中 {open} 本が使用中です",
    ),
    "limits-uncounted": (
        "port {port} is offered, {duration} s are within {limit} s; how many of {most} tunnels are open was not asked",
        "ポート {port} は利用でき、{duration} 秒は {limit} 秒以内です。{most} 本中何本が使用中かは調べていません",
    ),
    # -- target and way
    "target-refused": ("an endpoint never dials it: {reason}", "エンドポイントはここへ接続しません: {reason}"),
    "target-nobody": (
        "no network interface of {vpc} has {address}",
        "{vpc} には {address} を持つネットワークインターフェイスがありません",
    ),
    "target-elsewhere": (
        "{interface} is in {vpc}, but {endpoint} is in {here} and reaches nothing beyond",
        "{interface} は {vpc} にありますが、{endpoint} は {here} にあり、その外へは接続できません",
    ),
    "target-endpoint": (
        "{address} is {endpoint}: only the service connects to an endpoint",
        "{address} は {endpoint} です。エンドポイントへ接続するのはサービスだけです",
    ),
    "target-not-running": ("{instance} is {state}", "{instance} の状態は {state} です"),
    "target-there": ("{address} is {interface} of {owner}", "{address} は {owner} の {interface} です"),
    "target-cut-off": (
        "the network of {subnet} cannot be used: {problem}",  # a close reason has room for 123 bytes
        "{subnet} のネットワークは使えません: {problem}",
    ),
    "target-silent": (
        "{address} is {interface} of {owner}, which did not answer when it was last looked for",
        "{address} は {owner} の {interface} ですが、最後の確認では応答がありませんでした",
    ),
    "route-local": (
        "{address} is in {vpc} like the endpoint, and replies come back to it",
        "{address} はエンドポイントと同じ {vpc} にあり、応答はエンドポイントへ戻ります",
    ),
    "source-endpoint": (
        "the target sees {source}, the endpoint's address",
        "ターゲットに見える送信元は {source} (エンドポイントのアドレス) です",
    ),
    "source-client": (
        "the target sees {source}, the client's own address",
        "ターゲットに見える送信元は {source} (クライアント自身のアドレス) です",
    ),
    "source-refused": (
        "the client's address cannot be preserved: {reason}",
        "クライアントのアドレスを保持できません: {reason}",
    ),
    # -- groups
    "rule-inbound": ("{rule} inbound {content} from {peer}", "{rule} ({peer} からの {content} のインバウンド)"),
    "rule-outbound": ("{rule} outbound {content} to {peer}", "{rule} ({peer} への {content} のアウトバウンド)"),
    "packet-from": ("{content} from {address}", "{address} からの {content}"),
    "packet-to": ("{content} to {address}", "{address} への {content}"),
    "packets-from": ("{content} from {sources}", "{sources} からの {content}"),
    "traffic": ("{words}", "{words}"),
    "traffic-all": ("all traffic", "すべてのトラフィック"),
    "traffic-type": ("{protocol} type {type}", "{protocol} タイプ {type}"),
    "traffic-type-code": ("{protocol} type {type} code {code}", "{protocol} タイプ {type} コード {code}"),
    "traffic-protocol": ("protocol {protocol}", "プロトコル {protocol}"),
    "traffic-protocols": ("protocols {first}-{last}", "プロトコル {first}-{last}"),
    "traffic-protocols-ports": ("protocols {first}-{last} {ports}", "プロトコル {first}-{last} {ports}"),
    "rule-allows": ("{rule} allows {packet}", "{rule} が {packet} を許可しています"),
    "rule-allows-entry": (
        "{rule} allows {packet} by entry {entry}",
        "{rule} がエントリ {entry} により {packet} を許可しています",
    ),
    "outbound-nothing": (
        "no outbound rule of {groups} allows {packet}",
        "{groups} には {packet} を許可するアウトバウンドルールがありません",
    ),
    "inbound-nothing": (
        "no inbound rule of {groups} allows {packet}",
        "{groups} には {packet} を許可するインバウンドルールがありません",
    ),
    "miss": ("{rule} would, but for: {kept}", "{rule} は次の点を除けば許可します: {kept}"),
    "kept-protocol": ("the protocol", "プロトコル"),
    "kept-port": ("the port", "ポート"),
    "kept-family": ("the address family", "アドレスファミリー"),
    "kept-range": ("the address range", "アドレス範囲"),
    "kept-group": ("the group", "セキュリティグループ"),
    "kept-stale": ("a reference that is stale", "無効になった参照"),
    "defined-inline": ("{owner}, inline policy {policy}", "{owner} のインラインポリシー {policy}"),
    "defined-managed": ("{owner}, {policy}", "{owner} の {policy}"),
    "defined-group": ("{group} ({name})", "{group} ({name})"),
    "defined-settings": ("wicketgate.toml", "wicketgate.toml"),
    # -- tracking
    "tracked-both": (
        "both sides track the connection: it goes on when its rules are removed",
        "両側とも接続を追跡します。ルールを削除しても接続は続きます",
    ),
    "untracked": (
        "{sides} not tracked: removing {rules} cuts the connection at once",
        "{sides} では追跡されません。{rules} を削除すると接続は直ちに切れます",
    ),
    "revocation-immediate": (
        "revocation is immediate in {vpc}: any change that no longer allows the connection cuts it",
        "{vpc} では取り消しが即時です。許可しなくなる変更はすべて接続を切ります",
    ),
    # -- changes that would help
    "remedies": ("What would let it pass, the change that opens least first:", "通すための変更 (開くものが少ない順):"),
    "opens": ("also opens, pairs of interfaces: {count}", "ほかに次のインターフェイス間も開きます ({count} 組):"),
    "opens-nothing": ("opens nothing else", "ほかには何も開きません"),
    "result-pass": ("The connection can be made.", "接続できます。"),
    "result-fail": ("The connection cannot be made.", "接続できません。"),
    "result-unknown": ("It cannot be told whether the connection can be made.", "接続できるかどうか判断できません。"),
    "note-edit-policy": (
        "statement {statement} denies it for good: only editing it helps",
        "ステートメント {statement} が明示的に拒否しています。これを編集するしかありません",
    ),
    "note-session-policy": (
        "the session was narrowed when it began: assume the role again with a wider session policy",
        "セッションは開始時に制限されています。より広いセッションポリシーでロールを引き受け直してください",
    ),
    "note-setting": (
        "an operator's setting: put {setting} into wicketgate.toml and restart",
        "運用者の設定です。wicketgate.toml に {setting} と書いて再起動してください",
    ),
    "note-wait": (
        "wait until {endpoint} is in a state that admits tunnels",
        "{endpoint} がトンネルを開ける状態になるまで待ってください",
    ),
    "note-ask-again": (
        "ask again when it is there: what its groups let pass cannot be told before",
        "作成後にもう一度実行してください。セキュリティグループの判定は作成後に可能になります",
    ),
    "note-close-tunnels": ("close a tunnel of {endpoint}", "{endpoint} のトンネルを閉じてください"),
    "note-preservation": (
        "all targets of {endpoint} then see its own address instead of clients'",
        "{endpoint} のすべてのターゲットに、クライアントではなくエンドポイントのアドレスが見えるようになります",
    ),
    "note-policy-tunnel": (
        "allows {principal} this endpoint, address and port, and nothing else",
        "{principal} にこのエンドポイント・アドレス・ポートだけを許可します",
    ),
    "note-policy-key": (
        "allows {principal} to push keys for {user} to this instance, and nothing else",
        "{principal} にこのインスタンスの {user} への公開鍵の送信だけを許可します",
    ),
    "note-policy-look": (
        "allows {principal} to call {action}, which knows no narrower resource, and nothing else",
        "{principal} に {action} だけを許可します (この操作ではリソースを限定できません)",
    ),
}
"""Key -> English, Japanese."""

_BETWEEN: Final[dict[Language, str]] = {"en": ", ", "ja": "、"}


def text(say: Say, language: Language = "en") -> str:
    """A sentence in a language."""
    facts = dict(say.facts)
    for name, parts in say.parts.items():
        facts[name] = _BETWEEN[language].join(text(part, language) for part in parts)
    return CATALOGUE[say.key][LANGUAGES.index(language)].format(**facts)
